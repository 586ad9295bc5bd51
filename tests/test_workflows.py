"""What GitHub reads: workflows that call what is there, forms, the citation."""

import itertools
import pathlib
import re

import pytest
import yaml

import keras_kd as kd

ROOT = pathlib.Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
VERSION = re.compile(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)")
# Every job may read the repository; these may do what is named, instead.
PERMISSIONS = {
    "docs.yml publish": {"pages": "write", "id-token": "write"},
    "release.yml publish": {"id-token": "write"},
}
KEYS = {"name", "run", "uses", "with"}


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs():
    for path in WORKFLOWS:
        for name, job in load(path)["jobs"].items():
            yield f"{path.name} {name}", job


def needs(job):
    named = job.get("needs", [])
    return [named] if isinstance(named, str) else named


def commands(job):
    """The lines that a job runs, for each combination of its matrix."""
    matrix = job.get("strategy", {}).get("matrix", {})
    for values in itertools.product(*matrix.values()):
        for step in job["steps"]:
            text = step.get("run", "")
            for key, value in zip(matrix, values, strict=True):
                text = text.replace(f"${{{{ matrix.{key} }}}}", value)
            yield from text.splitlines()


def test_there_are_workflows():
    assert [path.stem for path in WORKFLOWS] == ["ci", "docs", "nightly", "release"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read(path):
    workflow = load(path)
    assert workflow[True]  # YAML's reading of the key `on`
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("name", "job"), list(jobs()))
def test_a_job_calls_what_is_there(name, job):
    assert job.get("permissions") == PERMISSIONS.get(name)
    assert job["timeout-minutes"] <= 360  # GitHub's own limit
    assert set(needs(job)) <= set(load(GITHUB / "workflows" / name.split()[0])["jobs"])
    for step in job["steps"]:
        assert set(step) <= KEYS
        assert ("run" in step) != ("uses" in step)
        assert "uses" not in step or VERSION.fullmatch(step["uses"])
    for line in commands(job):
        assert "${{" not in line
        words = line.split()
        if words[0] == "make":
            assert set(words[1:]) <= TARGETS
        for word in words:
            if re.fullmatch(r"(\.ci|tools)/[\w/.]+", word):
                assert (ROOT / word).is_file()


def test_the_matrix_and_native_tests_run_nightly():
    (job,) = (job for name, job in jobs() if name.startswith("nightly"))
    assert list(commands(job)) == ["make test-matrix", "make native-test", "make test-cuda"]


def test_a_release_waits_for_all_other_jobs():
    names = {name.split()[1]: job for name, job in jobs() if name.startswith("release")}
    assert set(needs(names.pop("publish"))) == set(names)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_github_asks_for(path):
    form = load(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert all(field["attributes"]["label"] for field in fields)


def test_dependabot_watches_python_and_actions():
    updates = load(GITHUB / "dependabot.yml")["updates"]
    assert [update["package-ecosystem"] for update in updates] == ["pip", "github-actions"]
    for update in updates:
        assert update["schedule"] == {"interval": "weekly"}
        assert len(update["groups"]) == 1


def test_the_citation_has_the_version():
    assert load(ROOT / "CITATION.cff")["version"] == kd.__version__


def test_the_command_is_the_module():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '\n[project.scripts]\nkeras-kd = "keras_kd.__main__:main"\n' in project
