"""The student as every route takes it: built, a plain Keras model, float32."""

import keras

from keras_kd import copies, models

_HALVES = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def check(student):
    """Raises unless a student is a model that can be exported.

    Raises:
        ValueError: It is no Keras model, wrapped in a distiller, not built, or quantized by Keras.
    """
    if not isinstance(student, keras.Model):
        raise ValueError(
            "`student` must be a keras.Model. "
            f"Received: student={student!r} of type {type(student).__name__}"
        )
    inner = getattr(student, "student", None)
    if callable(getattr(student, "rounded_student", None)):
        raise ValueError(
            f"`student` is a {type(student).__name__}. Only kd.export.to_tflite writes files with "
            "its ranges. With its weights on their grid, and float activations, a plain model is "
            "student.rounded_student()."
        )
    if isinstance(inner, keras.Model):
        raise ValueError(
            f"`student` is a {type(student).__name__}. Pass the model that it trains: "
            "distiller.student."
        )
    if not student.built:
        raise ValueError(
            f"Student {student.name!r} has no weights yet. Call it on a batch, or give it an Input."
        )
    quantized = [x.name for x in models.layers(student) if _is_quantized(x)]
    if quantized:
        raise ValueError(
            f"Keras' model.quantize has changed layers of {student.name!r}: {quantized[:5]}. What "
            "it makes does not export. Load the student as it was before, and let the export "
            "quantize it: quantization='int8'."
        )


def _is_quantized(layer):
    return isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy)


def in_float32(student):
    """The student, or where it computes in half precision a copy of it that does not.

    Raises:
        ValueError: Keras cannot make a copy of it.
    """
    if not any(_is_half(layer) for layer in [student, *models.layers(student)]):
        return student
    try:
        copy = _copy_in_float32(student)
        copies.give_weights(copy, student)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Student {student.name!r} computes in half precision, and Keras cannot make it again "
            "in float32: its class, or a layer's, has no fitting get_config. Make it in float32 "
            "yourself, and give it the weights: copy.set_weights(student.get_weights())."
        ) from error
    return copy


def _is_half(layer):
    return layer.dtype_policy.name in _HALVES


def _copy_in_float32(student):
    if isinstance(student, keras.Sequential) or hasattr(student, "operations"):
        return keras.models.clone_model(student, clone_function=_layer_in_float32, recursive=True)
    copy = _layer_in_float32(student)
    if not copy.built:
        copy.build_from_config(student.get_build_config() or {})
    return copy


def _layer_in_float32(layer):
    return type(layer).from_config(_config_in_float32(layer.get_config()))


def _config_in_float32(config):
    if isinstance(config, (list, tuple)):
        return type(config)(_config_in_float32(each) for each in config)
    if not isinstance(config, dict):
        return config
    return {
        key: "float32" if key == "dtype" and _names_half(value) else _config_in_float32(value)
        for key, value in config.items()
    }


def _names_half(value):
    if isinstance(value, dict):
        value = value.get("config", {}).get("name")
    return value in _HALVES
