"""Ways to a `.tflite` file: TensorFlow's converter and ai-edge-quantizer."""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_kd._utils import progress, validation
from keras_kd.export import representative, source
from keras_kd.export.tflite import calibrated, conversion, edge_quantizer

QUANTIZATIONS = (None, "dynamic", "float16", "int8", "int16x8", "int4")
NEEDS_DATA = ("int8", "int16x8")
CONVERTER_ONLY = (None, "float16")
# In the order in which they are tried. Dynamic files of ai-edge-quantizer keep embeddings in float
# (1,144,512 bytes against 376,768 of a small transformer); its int8 is faster to make, needs no
# process of its own and leaves the layout of the ranges to us.
_ROUTES = {
    None: ("converter",),
    "float16": ("converter",),
    "dynamic": ("converter", "edge_quantizer"),
    "int8": ("edge_quantizer", "converter"),
    "int16x8": ("converter", "edge_quantizer"),
    "int4": ("edge_quantizer",),
}
_OWN_DTYPE = {"int8": "int8", "int16x8": "int16"}


def steps_of(verbose):
    """The parts of an export; each route that is tried adds its own."""
    return progress.Steps("to_tflite", 0, verbose)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be converted, and how.

    Attributes:
        student: The model.
        quantization: One of `QUANTIZATIONS`, or a recipe of ai-edge-quantizer.
        arrays: Representative data, an array for each input, or `None`.
        batch_size: Rows of a batch, or `None` for any number.
        input_dtype: The type of inputs that are real numbers, or `None` for the default.
        output_dtype: Likewise of outputs.
        aware: The `QuantizationAware` student that `student` was made of, or `None`.
        metadata: What the file is to say of itself.
        steps: Told of what is done.
    """

    student: Any
    quantization: Any
    arrays: list | None
    batch_size: int | None
    input_dtype: str | None
    output_dtype: str | None
    aware: Any = None
    metadata: dict = dataclasses.field(default_factory=dict)
    steps: progress.Steps = dataclasses.field(default_factory=lambda: steps_of(0))

    @property
    def name(self):
        """The quantization in a word."""
        return "recipe" if self.is_recipe else self.quantization

    @property
    def input_type(self):
        """The type that inputs which are real numbers have in the file; `None`: of the recipe."""
        return self._type(self.input_dtype)

    @property
    def output_type(self):
        return self._type(self.output_dtype)

    def _type(self, asked):
        own = None if self.is_recipe else _OWN_DTYPE.get(self.quantization, "float32")
        return asked or own

    @property
    def is_integer(self):
        """Whether activations are integers too."""
        return not self.is_recipe and self.quantization in NEEDS_DATA

    @property
    def is_recipe(self):
        return not (self.quantization is None or isinstance(self.quantization, str))


def of(job, route):
    """The routes to try, in order.

    Raises:
        ValueError: `route` is none, or none for this quantization.
    """
    only_edge = job.is_recipe or job.aware is not None
    possible = ("edge_quantizer",) if only_edge else _ROUTES[job.quantization]
    if route == "auto":
        return possible
    if route not in possible:
        expected = f"'auto' or one of {possible} for quantization={job.quantization!r}"
        raise validation.invalid("route", expected, repr(route))
    return (route,)


def convert(job, route):
    """The bytes of the file, by one route.

    Raises:
        ExportError: It cannot make it.
    """
    return _by_converter(job) if route == "converter" else _by_edge_quantizer(job)


def _by_converter(job):
    job.steps.expect(2)  # with the comparison
    calibrates = f", calibrating on {len(job.arrays[0])} rows" if job.is_integer else ""
    job.steps.begin(f"converting{calibrates}")
    with conversion.saved(job.student, job.batch_size, job.is_integer) as path:
        if job.quantization not in NEEDS_DATA:
            return conversion.convert(path, lambda converter: _optimize(converter, job))
        names = source.input_names(job.student)
        return calibrated.convert(
            path,
            job.quantization,
            job.arrays,
            names,
            job.batch_size or 1,
            job.input_type,
            job.output_type,
        )


def _optimize(converter, job):
    if job.quantization is None:
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]


def _by_edge_quantizer(job):
    edge_quantizer.needs()
    content = _quantized(job)
    are_unsigned = job.input_dtype == "uint8", job.output_dtype == "uint8"
    if any(are_unsigned):
        from keras_kd.export.tflite import flatbuffer  # which needs flatbuffers, of the extra

        content = flatbuffer.borders(content, *are_unsigned)
    return content


def _quantized(job):
    job.steps.expect(4)
    job.steps.begin("converting")
    content = conversion.float_tflite(job.student, job.batch_size, job.is_integer)
    quantizer = edge_quantizer.EdgeQuantizer(
        content, job.quantization, job.input_dtype == "float32", job.output_dtype == "float32"
    )
    if not quantizer.needs_calibration:
        job.steps.skip("nothing to calibrate")
        job.steps.begin("quantizing")
        return quantizer.quantize()
    if job.arrays is None:  # of a recipe, which is not known to need data before
        representative.read(None, job.student)
    job.steps.begin(f"calibrating on {len(job.arrays[0])} rows")
    ranges = quantizer.calibrate(job.arrays, source.input_names(job.student))
    if job.aware is not None:
        ranges.update(job.aware.trained_ranges(job.student, content, job.arrays, ranges))
    job.steps.begin("quantizing")
    return quantizer.quantize(ranges)
