"""Skips what needs an extra that is not installed, and names what was skipped.

A test file may import an extra as if it were there: an `ImportError` that ends in a missing package
of the table skips the file or the test. `make extras` installs all of them; in CI
`KERAS_KD_REQUIRE_EXTRAS=1` then makes every skip a failure, except for what the machine itself
lacks (`MACHINE`).
"""

import importlib
import importlib.util
import os
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
_VENV, _EXTRAS = "make venv", "make extras"
INSTALLS = {
    "ai_edge_litert": _EXTRAS,
    "ai_edge_quantizer": _EXTRAS,
    "cloudpickle": _EXTRAS,
    "fsspec": _EXTRAS,
    "grpc": _EXTRAS,
    "ipykernel": _EXTRAS,
    "jiwer": _EXTRAS,
    "keras_hub": _EXTRAS,
    "matplotlib": _VENV,
    "mkdocs": _EXTRAS,
    "mkdocstrings": _EXTRAS,
    "mlflow": _EXTRAS,
    "mlxtend": _VENV,
    "moto": _EXTRAS,
    "nbclient": _EXTRAS,
    "nbformat": _EXTRAS,
    "onnx": _EXTRAS,
    "onnxruntime": _EXTRAS,
    "optuna": _EXTRAS,
    "pandas": _EXTRAS,
    "pyarrow": _EXTRAS,
    "pydantic": _EXTRAS,
    "ray": _EXTRAS,
    "rouge_score": _EXTRAS,
    "s3fs": _EXTRAS,
    "sacrebleu": _EXTRAS,
    "safetensors": _EXTRAS,
    "scipy": _VENV,
    "sentencepiece": _EXTRAS,
    "sklearn": _VENV,
    "tensorboard": _EXTRAS,
    "tenacity": _EXTRAS,
    "tensorflow_model_optimization": _EXTRAS,
    "tf2onnx": _EXTRAS,
    "tf_keras": _EXTRAS,
    "tokenizers": _EXTRAS,
    "torch": _EXTRAS,
    "transformers": _EXTRAS,
    "triton": _EXTRAS,
    "upath": _EXTRAS,
    "urllib3": _EXTRAS,
    "wandb": _EXTRAS,
    "yaml": _VENV,
}
# Why a test may be skipped although every extra is installed: hardware, and what needs it.
MACHINE = re.compile(r"\bGPU\b|TensorRT|this machine has no avx")


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
    return f"{package} is not installed: `{INSTALLS[package]}`"


def require_folder(name):
    """The path of what `make extras` installs beside the packages, `.venv/NAME`."""
    folder = ROOT / ".venv" / name
    if not folder.exists():
        pytest.skip(f".venv/{name} is not installed: `{_EXTRAS}`")
    return folder


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


def reason_of(report):
    """Why a report says "skipped"."""
    _, _, reason = report.longrepr
    return reason.removeprefix("Skipped: ")


def _refuse_skip(report):
    """Where the extras are required, a skip for any reason but the machine's is a failure."""
    if not (report.skipped and is_required()) or hasattr(report, "wasxfail"):
        return
    reason = reason_of(report)
    if not MACHINE.search(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped although KERAS_KD_REQUIRE_EXTRAS=1: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    reason = _skips(report.call) if report.failed else None
    if reason:
        report.outcome, report.longrepr = "skipped", (os.fspath(collector.path), None, reason)
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    reason = _skips(call) if report.failed else None
    if reason:
        path, line, _ = item.location
        report.outcome, report.longrepr = "skipped", (path, line, f"Skipped: {reason}")
    _refuse_skip(report)
    return report
