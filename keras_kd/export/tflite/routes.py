"""The two routes to a `.tflite` file: TensorFlow's converter and ai-edge-quantizer."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_kd._utils import progress
from keras_kd.export import representative
from keras_kd.export.student import ExportableModel
from keras_kd.export.tflite import calibrated, conversion, edge_quantizer
from keras_kd.export.tflite.options import TFLiteOptions


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A file to make: of what, and how.

    Attributes:
        exportable: The student.
        options: The checked arguments.
        arrays: Representative data, an array for each input, or `None`.
        steps: Reports the parts of the work.
    """

    exportable: ExportableModel
    options: TFLiteOptions
    arrays: list[np.ndarray] | None
    steps: progress.Steps


def convert(job: Job, route: str) -> bytes:
    """The content of the file, by one route.

    Raises:
        ExportError: The route cannot make it.
    """
    return _by_converter(job) if route == "converter" else _by_edge_quantizer(job)


def _by_converter(job):
    options = job.options
    job.steps.expect(2)  # with the comparison
    calibrates = f", calibrating on {len(job.arrays[0])} samples" if options.is_integer else ""
    job.steps.begin(f"converting{calibrates}")
    with conversion.saved(job.exportable, options.batch_size, options.is_integer) as path:
        if options.is_integer:
            request = calibrated.Request(
                quantization=options.quantization,
                names=job.exportable.input_names,
                batch_size=options.batch_size or 1,
                input_dtype=options.input_type,
                output_dtype=options.output_type,
            )
            return calibrated.convert(path, request, job.arrays)
        return conversion.convert(path, lambda converter: _optimize(converter, options))


def _optimize(converter, options):
    if options.quantization is None:
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]


def _by_edge_quantizer(job):
    edge_quantizer.require_edge_quantizer()
    content = _quantized(job)
    are_unsigned = job.options.input_dtype == "uint8", job.options.output_dtype == "uint8"
    if any(are_unsigned):
        from keras_kd.export.tflite import flatbuffer  # which needs flatbuffers, of the extra

        content = flatbuffer.with_unsigned_borders(content, *are_unsigned)
    return content


def _quantized(job):
    options, exportable = job.options, job.exportable
    job.steps.expect(4)
    job.steps.begin("converting")
    content = conversion.float_tflite(exportable, options.batch_size, options.is_integer)
    quantizer = edge_quantizer.EdgeQuantizer(
        content,
        options.quantization,
        float_inputs=options.input_dtype == "float32",
        float_outputs=options.output_dtype == "float32",
    )
    if not quantizer.needs_calibration:
        job.steps.skip("nothing to calibrate")
        job.steps.begin("quantizing")
        return quantizer.quantize()
    if job.arrays is None:  # of a recipe, which may need none
        raise representative.missing_data()
    job.steps.begin(f"calibrating on {len(job.arrays[0])} samples")
    ranges = quantizer.calibrate(job.arrays, exportable.input_names)
    if exportable.source is not None:
        trained = exportable.source.trained_ranges(exportable, content, job.arrays, ranges)
        ranges.update(trained)
    job.steps.begin("quantizing")
    return quantizer.quantize(ranges)
