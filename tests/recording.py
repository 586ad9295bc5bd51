"""What came of a run of pytest: its outcomes, and one line that names what was skipped.

With `--record=FILE` the counts are written as JSON, which `tools/run_tests.py` adds up over the
parts of the suite.
"""

import collections
import json
import pathlib
import re

import pytest

from tests import extras


def pytest_addoption(parser):
    group = parser.getgroup("recording")
    group.addoption("--record", metavar="FILE", help="write the outcomes and skips as JSON")


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(config))


class Recorder:
    """Counts the reports that reach the process that the user started."""

    def __init__(self, config):
        self._record = config.option.record
        self._outcomes = collections.Counter()
        self._skips = collections.Counter()

    def pytest_runtest_logreport(self, report):
        if hasattr(report, "wasxfail"):
            self._outcomes["xfailed"] += report.skipped
        elif report.skipped:
            self._skips[extras.reason_of(report)] += 1
            self._outcomes["skipped"] += 1
        elif report.failed:
            self._outcomes["failed"] += 1
        elif report.when == "call":
            self._outcomes["passed"] += 1

    def pytest_collectreport(self, report):
        if report.skipped:  # a whole file
            self._skips[extras.reason_of(report)] += 1
            self._outcomes["skipped"] += 1
        elif report.failed:
            self._outcomes["failed"] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self):
        if self._record:
            record = {"outcomes": self._outcomes, "skips": self._skips}
            pathlib.Path(self._record).write_text(json.dumps(record))

    def pytest_terminal_summary(self, terminalreporter):
        if self._skips:
            terminalreporter.write_line(describe_skips(self._skips))


def describe_skips(skips):
    """One line from `{reason: count}`, which counts a file that was left out as one.

    >>> describe_skips({"torch is not installed: `make extras`": 3, "no GPU": 2})
    'skipped: torch (3) not installed, `make extras` installs it; no GPU (2)'
    """
    missing, others = collections.defaultdict(list), []
    for reason, count in sorted(skips.items()):
        if found := re.fullmatch(r"(\S+) is not installed: `(.*)`", reason):
            package, remedy = found.groups()
            missing[remedy].append(f"{package} ({count})")
        else:
            others.append(f"{reason} ({count})")
    lines = []
    for remedy, packages in missing.items():
        them = "it" if len(packages) == 1 else "them"
        lines.append(f"{', '.join(packages)} not installed, `{remedy}` installs {them}")
    return "skipped: " + "; ".join(lines + others)
