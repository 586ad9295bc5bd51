"""The public names, their arguments and the names in files are those of `golden/public_names.txt`.

A name that is renamed or removed, or an argument that is another one, breaks its users' programs
or files: that is seen here, and decided. Where it is wanted, write the list again with

    python -m tests.test_public_names

and name the change in CHANGELOG.md.
"""

import difflib
import importlib.util
import inspect
import pathlib
import sys
import types

import keras
import pytest

import keras_kd as kd

FILE = pathlib.Path(__file__).parent / "golden" / "public_names.txt"
# What users call and read of an object, or override in a class of their own. The classes' other
# attributes are how they work.
OF_MODELS = "compile evaluate fit from_config get_config load_weights save save_weights summary"
OF_LOSSES = "build call from_config get_config validate weight"
OF_TEACHERS = "call from_config get_config"
MEMBERS = {
    "keras_kd.BornAgain": "compile fit",
    "keras_kd.Distiller": f"{OF_MODELS} alpha attach beta checks_first_batch compute_loss "
    "compute_metrics distillation_loss_weights distillation_losses evaluate_with_teacher "
    "losses_by_name set_teacher student_loss_weight teacher temperature test_step train_step",
    "keras_kd.MutualDistiller": f"{OF_MODELS} alpha beta distillation_losses losses_by_name "
    "optimizers peers teaching temperature",
    "keras_kd.Report": "metric save_html save_json save_markdown scalars to_dict to_markdown",
    "keras_kd.cache.sources.Source": "describe whole",
    "keras_kd.diagnosis.Diagnosis": "problems to_json",
    "keras_kd.diagnosis.Finding": "is_problem",
    "keras_kd.losses.DistillationLoss": f"{OF_LOSSES} labels_are_numbers min_batch_size",
    "keras_kd.losses.SoftTargets": f"{OF_LOSSES} temperature",
    "keras_kd.measurement.Measurement": "to_dict",
    "keras_kd.measurement.runtimes.OnnxFile": "operators run",
    "keras_kd.measurement.runtimes.TFLiteFile": "operators run",
    "keras_kd.quantization.QuantizationAware": f"{OF_MODELS} freeze rounded_student",
    "keras_kd.quantization.tfmot.TfmotStudent": "predict to_tflite",
    "keras_kd.schedules.Linear": "at",
    "keras_kd.taps.Tap": "from_config get_config",
    "keras_kd.teachers.EMA": f"{OF_TEACHERS} decay",
    "keras_kd.teachers.HostTeacher": f"{OF_TEACHERS} predict",
    "keras_kd.teachers.Snapshot": f"{OF_TEACHERS} take",
    "keras_kd.teachers.Teacher": f"{OF_TEACHERS} bind output_names predict_batch update",
    "keras_kd.weighting.Weighting": "factors from_config get_config shares",
}


def entries():
    """The lines of the list, sorted."""
    found = [*_names(kd), "keras_kd.cache.beam", *_names(_beam())]
    for name, members in MEMBERS.items():
        found += [_line(f"{name}.{each}", _member(name, each)) for each in members.split()]
    registered = keras.saving.get_custom_objects()
    return sorted({*found, *(name for name in registered if name.startswith("keras_kd>"))})


def _names(module):
    """A line for each name of a module's `__all__`, and of those of the modules among them."""
    for name in module.__all__:
        value = getattr(module, name)
        yield _line(f"{module.__name__}.{name}", value)
        if inspect.ismodule(value):
            yield from _names(value)


def _beam():
    """`keras_kd.cache.beam`, beside a stand-in for Apache Beam."""
    base = types.ModuleType("apache_beam")
    base.PTransform = base.DoFn = object
    spec = importlib.util.find_spec("keras_kd.cache.beam")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "apache_beam", base)
        spec.loader.exec_module(module)
    return module


def _member(name, member):
    *modules, owner = name.split(".")[1:]
    module = kd
    for each in modules:
        module = getattr(module, each)
    value = inspect.getattr_static(getattr(module, owner), member)
    return value.__func__ if isinstance(value, (classmethod, staticmethod)) else value


def _line(name, value):
    if not callable(value) or value.__module__.partition(".")[0] != "keras_kd":  # Keras' own
        return name
    if inspect.isclass(value) and issubclass(value, BaseException):
        bases = [each.__name__ for each in value.__mro__ if each.__module__ == "builtins"]
        return f"{name}: a {bases[0]}"
    # Types may be added: they change nothing for those who call.
    signature = inspect.signature(value)
    parameters = [
        each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()
    ]
    plain = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return f"{name}{plain}"


def test_public_names_are_the_listed_ones():
    expected = FILE.read_text(encoding="utf-8").splitlines()
    changes = [
        line
        for line in difflib.unified_diff(expected, entries(), "listed", "found", lineterm="", n=0)
        if not line.startswith("@@")
    ]
    if changes:
        pytest.fail(
            "Public names or their arguments are other ones. Where that is wanted, run `python -m "
            "tests.test_public_names` and name it in CHANGELOG.md:\n" + "\n".join(changes)
        )


def test_no_line_depends_on_the_process():
    assert not [line for line in FILE.read_text(encoding="utf-8").splitlines() if " at 0x" in line]


if __name__ == "__main__":
    FILE.write_text("\n".join(entries()) + "\n", encoding="utf-8")
