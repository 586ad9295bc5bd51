"""`quantization_aware`: makes a student that trains with the integers of its file."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd.export import representative, supported
from keras_kd.export.student import ExportableModel
from keras_kd.quantization import fake_quant, layout, trial
from keras_kd.quantization.model import QuantizationAware


def quantization_aware(
    student: keras.Model,
    scheme: str = "int8",
    representative_data: Any = None,
    *,
    leave: Sequence[str] = (),
    observe_steps: int = 200,
    name: str | None = None,
) -> QuantizationAware:
    """A student that computes, while a `Distiller` trains it, with the integers of its file.

    Weights are rounded as they are used, and the gradient passes straight through; the float
    teacher teaches the rounded student:

        w_q = s round(w / s)                          one s for each output channel
        y_q = s (clip(round(y / s) + z, -128, 127) - z)   one s and z for each activation ("int8")

    A trial file shows which activations are rounded: the student is converted, and its layers'
    outputs are looked for among the tensors of the file. Layers that it fuses (Conv2D,
    BatchNormalization, ReLU) are rounded once, as in the file. Ranges start from the representative
    data, follow the batches of the first steps, and are then frozen. `keras_kd.export.to_tflite`
    writes the file with these ranges and integers.

    The gain depends on two things. Let the learning rate decay to 0: with a constant one, training
    was worse than none. And recalibrate BatchNormalization at the end
    (`keras_kd.quantization.recalibrate`).

    Args:
        student: A built Keras model in float32 with known input shapes, trained in float. Its own
            variables are trained further; it is not copied. (A student in mixed precision is
            copied in float32.)
        scheme: `"int8"`: weights and activations, for NPUs and microcontrollers. `"int4"`: kernels
            of convolutions and dense layers in 4 bits, depthwise and transposed ones in 8,
            embeddings and activations in float.
        representative_data: See `to_tflite`; `"int4"` needs none, and tries the file on some of
            its samples.
        leave: Paths of layers whose weights stay float while training; the file rounds them.
        observe_steps: In how many training steps the ranges of activations follow the batches.
        name: The name of the new model.

    Returns:
        A `QuantizationAware` model: `fit`, `Distiller`, `save` and `load_model` work as for any.
        `model.student` is the float student, `model.rounded_student()` a plain copy on the grid.

    Raises:
        ValueError: The student, a layer of it, or the data cannot be used. An int8 file would hold
            operators in float32: their layers are named.
        ExportError: TensorFlow cannot convert the student, or LiteRT cannot run its file. For
            `"int4"` that is tried if `keras-kd[export]` is installed.
        ImportError: `pip install 'keras-kd[export]'` is missing (`"int8"` only).

    Reference:
        Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", https://arxiv.org/abs/1712.05877; Polino et al., 2018,
        "Model compression via distillation and quantization", https://arxiv.org/abs/1802.05668.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    y = np.arange(64) % 3
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])

    aware = kd.quantization_aware(student, "int4")
    distiller = kd.Distiller(teacher, aware)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, decay_steps=8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.Adam(rate), loss)
    distiller.fit(x, y, batch_size=16, epochs=2, verbose=0)
    # kd.export.to_tflite(aware, "student.tflite")
    ```
    """
    steps = validation.integer("observe_steps", observe_steps, 0)
    validation.text("name", name, "a name", optional=True)
    bits = fake_quant.scheme_named(scheme)
    if isinstance(student, QuantizationAware):
        raise ValueError(
            f"`student` is quantization-aware already, for {student.scheme!r}. Pass the student "
            "itself: student.student."
        )
    exportable = ExportableModel.from_keras(student, "quantization_aware")
    kernels = [each.variable for each in fake_quant.plan_weights(exportable.model, bits, leave)]
    arrays = None
    roundings: list[layout.Rounding] = []
    operands: list[layout.RoundedOperand] = []
    if representative_data is not None or bits.activation_bits:
        arrays = representative.read_samples(representative_data, exportable).arrays
    if bits.activation_bits and arrays is not None:
        supported.check_integer_activations(exportable, scheme)
        representative.check_ranges(arrays, exportable)
        left = fake_quant.weights_left(exportable.model, leave)
        roundings, operands = layout.read_layout(exportable, arrays, kernels + left)
    aware = QuantizationAware(
        exportable.model,
        scheme,
        roundings=[each.get_config() for each in roundings],
        operands=layout.operand_places(operands),
        leave=leave,
        observe_steps=steps,
        name=name,
    )
    if not bits.activation_bits:
        trial.check_int4_file(exportable, arrays)
    return aware
