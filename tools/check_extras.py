"""Sees that each extra of pyproject.toml fits beside the oldest and the newest TensorFlow.

    python tools/check_extras.py [--install] [--tensorflow VERSION ...] [EXTRA ...]

For each extra pip resolves what `pip install 'keras-kd[tensorflow-cpu,EXTRA]'` would, from nothing,
and installs none of it. What pip resolves passes `pip check`, which looks at the same metadata.
With `--install` each goes into a fresh virtual environment and `pip check` looks at it; then the
environment is removed. A line for each combination tells the versions that were chosen, or why
there are none; the exit status is 1 where one of them does not fit.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
TENSORFLOW = "tensorflow-cpu"
# What is looked at by itself: the extras that name TensorFlow.
DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu")
# Extras that are installed beside tensorflow-cpu in another way, and why.
EXCEPTIONS = {"tfmot": "tf-keras asks for the distribution `tensorflow`: install with --no-deps"}
SHOWN = ("tensorflow-cpu", "keras", "numpy", "protobuf")


def project(path=ROOT / "pyproject.toml"):
    """The table `project` of a pyproject.toml."""
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]


def ends_of(requirement):
    """The oldest and the newest series of `tensorflow-cpu>=2.18,<2.22`: `2.18.*`, `2.21.*`."""
    oldest, newest = re.fullmatch(r"[\w-]+>=(\d+\.\d+),<(\d+\.\d+)", requirement).groups()
    major, minor = map(int, newest.split("."))
    return [f"{oldest}.*", f"{major}.{minor - 1}.*"]


def requirements_of(table, extra, version):
    """What pip is asked for."""
    own = table["optional-dependencies"][extra]
    return [*table["dependencies"], f"{TENSORFLOW}=={version}", *own]


def names_of(requirements):
    """The distributions that requirements ask for."""
    return [normalized(re.match(r"[\w.-]+", each).group()) for each in requirements]


def normalized(name):
    """A distribution's name as its index has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolved(requirements):
    """`({name: version}, None)` of what pip would install, or `({}, why not)`."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        options = ["--quiet", "--dry-run", "--ignore-installed", f"--report={report}"]
        why_not = _run([sys.executable, "-m", "pip", "install", *options, *requirements])
        if why_not:
            return {}, why_not
        chosen = json.loads(report.read_text())["install"]
    facts = [each["metadata"] for each in chosen]
    return {normalized(each["name"]): each["version"] for each in facts}, None


def installed(requirements):
    """The same of a fresh environment, in which `pip check` has found nothing."""
    with tempfile.TemporaryDirectory() as folder:
        python = pathlib.Path(folder) / "venv/bin/python"
        pip = [python, "-m", "pip"]
        why_not = (
            _run([sys.executable, "-m", "venv", python.parents[1]])
            or _run([*pip, "install", "--quiet", "--no-compile", *requirements])
            or _run([*pip, "check"])
        )
        if why_not:
            return {}, why_not
        listed = subprocess.run(
            [*pip, "list", "--format=json"], capture_output=True, text=True, check=True
        )
    return {normalized(each["name"]): each["version"] for each in json.loads(listed.stdout)}, None


def _run(command):
    """Runs a command; returns what it printed where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if line.strip() and not line.startswith(("WARNING", "[notice]"))
    ]
    return "\n".join(lines[-20:]) or f"exit status {done.returncode}"


def main(arguments=None):
    """Checks what the command line says; returns the exit status."""
    table = project()
    extras = [each for each in table["optional-dependencies"] if each not in DISTRIBUTIONS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="default: all")
    parser.add_argument("--install", action="store_true", help="into environments, not by metadata")
    parser.add_argument(
        "--tensorflow",
        nargs="+",
        default=ends_of(table["optional-dependencies"][TENSORFLOW][0]),
        help="versions of tensorflow-cpu",
    )
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.extras) - set(extras))
    if unknown:
        parser.error(f"no such extra: {', '.join(unknown)}. There are: {', '.join(extras)}")
    failed = False
    for extra in given.extras or extras:
        if extra in EXCEPTIONS:
            print(f"{extra}: left out: {EXCEPTIONS[extra]}", flush=True)
            continue
        for version in given.tensorflow:
            begin = time.monotonic()
            find = installed if given.install else resolved
            chosen, why_not = find(requirements_of(table, extra, version))
            names = [*SHOWN, *names_of(table["optional-dependencies"][extra])]
            shown = ", ".join(f"{name} {chosen[name]}" for name in names if name in chosen)
            what = f"does not fit:\n{why_not}" if why_not else f"fits: {shown}"
            seconds = time.monotonic() - begin
            print(f"{extra}, {TENSORFLOW} {version}: {what} ({seconds:.0f} s)", flush=True)
            failed |= why_not is not None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
