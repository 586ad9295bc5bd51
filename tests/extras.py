"""Skips what needs an extra that is not installed, and says what installs it.

A test file may import an extra as if it were there: an `ImportError` that ends in a missing package
of the table skips the file or the test. `make test` installs all of them and sets
`KERAS_KD_REQUIRE_EXTRAS=1`, which makes that a failure.
"""

import importlib
import importlib.util
import os
import re

import pytest

_PIP = "pip install"
INSTALLS = {
    "ai_edge_litert": f"{_PIP} 'keras-kd[export]'",
    "ai_edge_quantizer": f"{_PIP} 'keras-kd[export]'",
    "keras_hub": "make .venv/hub",
    "matplotlib": f"{_PIP} 'keras-kd[plot]'",
    "mlxtend": f"{_PIP} 'keras-kd[examples]'",
    "onnx": f"{_PIP} 'keras-kd[onnx]'",
    "onnxruntime": f"{_PIP} 'keras-kd[onnx]'",
    "rouge_score": f"{_PIP} 'keras-kd[measure]'",
    "sacrebleu": f"{_PIP} 'keras-kd[measure]'",
    "scipy": f"{_PIP} 'keras-kd[measure]'",
    "sklearn": f"{_PIP} 'keras-kd[measure]'",
    "tensorflow_model_optimization": "make .venv/tfmot",
    "tf2onnx": f"{_PIP} 'keras-kd[onnx]'",
    "tf_keras": "make .venv/tfmot",
    "torch": f"{_PIP} 'keras-kd[torch]'",
    "transformers": f"{_PIP} transformers",
    "triton": f"{_PIP} triton",
    "yaml": f"{_PIP} 'keras-kd[test]'",
}


def missing_extra(error):
    """The package of the table whose absence raised an `ImportError`, or None."""
    while isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        if package in INSTALLS and importlib.util.find_spec(package) is None:
            return package
        error = error.__cause__ or error.__context__
    return None


def is_required():
    """Whether to fail instead of skipping."""
    return os.environ.get("KERAS_KD_REQUIRE_EXTRAS") == "1"


def skip_reason(package):
    return f"{package} is not installed: `{INSTALLS[package]}`, or `make test`"


def require(module):
    """The module; where its package is missing the test is skipped."""
    return importlib.import_module(module)


def require_in_a_process(*packages):
    """Like `require`, for tests that start processes: imports of these packages have effects."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def check_errors(text):
    """Raises where a command has printed `... needs PACKAGE: pip install ...`."""
    for package in re.findall(r"needs (\w+)[\w.]*: pip install", text):
        require_in_a_process(package)


def _skips(call):
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, pytest.Collector.CollectError):  # what importing a file of tests raised
        error = error.__cause__
    package = None if is_required() else missing_extra(error)
    return package and skip_reason(package)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    reason = _skips(report.call) if report.failed else None
    if reason:
        report.outcome, report.longrepr = "skipped", (os.fspath(collector.path), None, reason)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    reason = _skips(call) if report.failed else None
    if reason:
        path, line, _ = item.location
        report.outcome, report.longrepr = "skipped", (path, line, f"Skipped: {reason}")
    return report
