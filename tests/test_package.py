"""What holds for the package as a whole: imports, documentation, private names."""

import ast
import inspect
import json
import pathlib
import re

import pytest

import keras_kd as kd
from tests import fresh_process

PACKAGE = pathlib.Path(kd.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
# File -> private modules it may import. This list may only shrink.
PRIVATE = {
    "ops/backends/xla.py": {"tensorflow.compiler.mlir.stablehlo", "tensorflow.compiler.tf2xla.ops"},
}
MODULES = {
    "__version__",
    "cache",
    "callbacks",
    "compression",
    "data",
    "diagnosis",
    "export",
    "language",
    "losses",
    "measurement",
    "numpy",
    "ops",
    "quantization",
    "recipes",
    "runtimes",
    "scale",
    "schedules",
    "sources",
    "students",
    "taps",
    "teachers",
    "tfmot",
    "tuning",
    "weighting",
}
SYMBOLS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (
        kd,
        kd.cache,
        kd.cache.sources,
        kd.callbacks,
        kd.compression,
        kd.data,
        kd.diagnosis,
        kd.export,
        kd.language,
        kd.losses,
        kd.measurement,
        kd.ops,
        kd.ops.numpy,
        kd.quantization,
        kd.recipes,
        kd.runtimes,
        kd.scale,
        kd.schedules,
        kd.students,
        kd.taps,
        kd.teachers,
        kd.tuning,
        kd.weighting,
    )
    for name in module.__all__
    if callable(getattr(module, name))
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_private_imports_are_allowlisted():
    private = re.compile(r"^(keras\.src|tensorflow\.(python|compiler|core))")
    found = {}
    for path in SOURCES:
        names = {name for name in imports(path) if private.match(name)}
        if names:
            found[path.relative_to(PACKAGE).as_posix()] = names
    assert found == PRIVATE


def test_no_assert_statement_in_the_package():
    # `python -O` removes them.
    for path in SOURCES:
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not any(isinstance(node, ast.Assert) for node in nodes), path


@pytest.mark.parametrize("name", SYMBOLS)
def test_public_docstrings_and_examples(name):
    text = inspect.getdoc(SYMBOLS[name])
    assert text, name
    if issubclass(type(SYMBOLS[name]), type) and issubclass(SYMBOLS[name], Exception):
        return
    if inspect.isfunction(SYMBOLS[name]) and not inspect.signature(SYMBOLS[name]).parameters:
        return
    assert "Args:" in text or not inspect.signature(SYMBOLS[name]).parameters
    if inspect.isfunction(SYMBOLS[name]) and name != "keras_kd.ops.use_kernel":  # a context manager
        assert "Returns:" in text
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert examples, f"{name} has no example"
    for example in examples:
        exec(compile(example, name, "exec"), {"__name__": "example"})


@pytest.mark.parametrize(
    "module",
    [
        kd,
        kd.cache,
        kd.cache.sources,
        kd.callbacks,
        kd.compression,
        kd.diagnosis,
        kd.export,
        kd.language,
        kd.losses,
        kd.measurement,
        kd.ops,
        kd.quantization,
        kd.recipes,
        kd.runtimes,
        kd.scale,
        kd.students,
        kd.taps,
        kd.teachers,
        kd.tuning,
    ],
    ids=lambda module: module.__name__,
)
def test_all_names_what_is_public(module):
    public = {name for name in dir(module) if not name.startswith("_")}
    helpers = {name for name in public if inspect.ismodule(getattr(module, name))}
    assert public - helpers == {name for name in module.__all__ if name not in MODULES}


def test_import_is_fast_and_lazy():
    # What keras_kd's own modules cost, beside Keras and TensorFlow: measured 0.05 of it.
    program = (
        "import json, time\n"
        "start = time.process_time()\n"
        "import keras, tensorflow\n"
        "before = time.process_time()\n"
        "import keras_kd\n"
        "share = (time.process_time() - before) / (before - start)\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(json.dumps([share, 'libkeras_kd' in maps]))\n"
    )
    for _ in range(3):  # The first import may have to write byte code.
        share, loaded = json.loads(fresh_process.run(["-c", program]).splitlines()[-1])
        assert not loaded
        if share < 0.15:
            break
    assert share < 0.15


@pytest.mark.parametrize("as_json", [False, True])
def test_doctor(as_json):
    arguments = ["-m", "keras_kd", "doctor", *(["--json"] if as_json else [])]
    done = fresh_process.run_preloaded(arguments)
    if as_json:
        facts = json.loads(done.stdout)
        assert facts["versions"]["keras_kd"] == kd.__version__
        assert facts["kernel"]["used"] in ("native", "tensorflow")
        assert facts["kernel"].get("self_test", "passed") == "passed"
    else:
        for word in ("tensorflow", "instruction set", "xla", "gpu"):
            assert word in done.stdout


@pytest.mark.parametrize(
    "variable", [f"KERAS_KD_{name}" for name in ("KERNEL", "GPU", "NUM_THREADS", "BINDING")]
)
def test_doctor_names_invalid_variable(variable):
    env = fresh_process.environment(**{variable: "0x"})
    done = fresh_process.run_preloaded(["-m", "keras_kd", "doctor"], env, check=False)
    assert done.returncode == 1
    assert f"Invalid value for environment variable {variable}" in done.stdout
    assert f"{variable}: " in done.stdout
    assert "Traceback" not in done.stderr


def test_doctor_fails_without_required_native_library(tmp_path):
    copy = tmp_path / "keras_kd"
    for path in SOURCES:
        target = copy / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    env = fresh_process.environment(PYTHONPATH=str(tmp_path), KERAS_KD_KERNEL="native")
    done = fresh_process.run_preloaded(["-m", "keras_kd", "doctor"], env, tmp_path, check=False)
    assert done.returncode == 1
    assert "without its native library" in done.stdout
