"""Configurations as Keras saves them, and values as JSON can hold them."""

import math
from typing import Any

import keras
import numpy as np

# Configurations of the parts of a distiller, as Keras saves them.


def serialized(name: str, value: Any) -> Any:
    """The configuration of a model, or of a function that is registered with Keras.

    Args:
        name: What the value is to its owner, for the message.
        value: A layer, a registered object or function, or `None`.

    Raises:
        ValueError: It is not registered.
    """
    if value is None:
        return None
    if not isinstance(value, keras.layers.Layer) and not _is_registered(value):
        raise ValueError(
            f"The distiller cannot be saved: its {name} {value!r} is not known to Keras by name. "
            "Register it with @keras.saving.register_keras_serializable(), or save the student "
            "alone: distiller.student.save(path)."
        )
    return keras.saving.serialize_keras_object(value)


def without_training(config: Any) -> Any:
    """A configuration without how the models in it are compiled: their owner saves that."""
    if isinstance(config, dict):
        return {
            key: None if key == "compile_config" else without_training(value)
            for key, value in config.items()
        }
    return [without_training(each) for each in config] if isinstance(config, list) else config


def _is_registered(value: Any) -> bool:
    name = keras.saving.get_registered_name(value if hasattr(value, "__name__") else type(value))
    return keras.saving.get_registered_object(name) is not None


def deserialized(value: Any) -> Any:
    """A value of a configuration, with objects in place of what Keras has serialized."""
    if isinstance(value, list):
        return [deserialized(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "class_name" in value:
        return _make(value)
    return {key: deserialized(each) for key, each in value.items()}


def _make(config: dict[str, Any]) -> Any:
    """An object from its configuration; a model is compiled as Keras compiles what it loads.

    KerasHub's tasks compile themselves when they are made. Keras does not call a `compile` that a
    class overrides, and warns: which is right only where the model was compiled differently.
    """
    compiled = config.get("compile_config")
    if not compiled:
        return keras.saving.deserialize_keras_object(config)
    model = keras.saving.deserialize_keras_object({**config, "compile_config": None})
    if _settings(compiled) != _settings(model.get_compile_config()):
        model.compile_from_config(compiled)
    return model


def _settings(config: Any) -> Any:
    """A configuration without what Keras numbers: names of optimizers, ids of objects."""
    if isinstance(config, dict):
        counted = ("name", "shared_object_id")
        return {key: _settings(value) for key, value in config.items() if key not in counted}
    if isinstance(config, (list, tuple)):
        return [_settings(each) for each in config]
    return config


# Values as JSON can hold them.


def plain(value: Any) -> Any:
    """Python's numbers and keys of text; numbers that are not finite become `None`."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Files of version 0.1 hold digests of configurations in which Keras had written the module of each
# class. These were its modules; a class that came later has none, wherever it stands.
_MODULES_OF_0_1 = {
    "keras_kd>Distiller": "keras_kd.distiller",
    "keras_kd>AttentionMaps": "keras_kd.losses.attention_maps",
    "keras_kd>AttentionTransfer": "keras_kd.losses.attention_transfer",
    "keras_kd>ChannelWise": "keras_kd.losses.channel_wise",
    "keras_kd>ContrastiveRepresentation": "keras_kd.losses.contrastive_representation",
    "keras_kd>CosineHidden": "keras_kd.losses.cosine_hidden",
    "keras_kd>CurriculumTemperature": "keras_kd.losses.curriculum_temperature",
    "keras_kd>DecoupledKD": "keras_kd.losses.decoupled_kd",
    "keras_kd>DIST": "keras_kd.losses.dist",
    "keras_kd>FeatureHint": "keras_kd.losses.feature_hint",
    "keras_kd>FlowMatrix": "keras_kd.losses.flow_matrix",
    "keras_kd>HiddenStates": "keras_kd.losses.hidden_states",
    "keras_kd>KerasDistillation": "keras_kd.losses.keras_distillation",
    "keras_kd>_Features": "keras_kd.losses.keras_distillation",
    "keras_kd>_Logits": "keras_kd.losses.keras_distillation",
    "keras_kd>LearningWithoutForgetting": "keras_kd.losses.learning_without_forgetting",
    "keras_kd>LogitStandardization": "keras_kd.losses.logit_standardization",
    "keras_kd>LogitsMSE": "keras_kd.losses.logits_mse",
    "keras_kd>NeuronSelectivity": "keras_kd.losses.neuron_selectivity",
    "keras_kd>ProbabilisticTransfer": "keras_kd.losses.probabilistic_transfer",
    "keras_kd>RegressionKD": "keras_kd.losses.regression_kd",
    "keras_kd>RelationalAngle": "keras_kd.losses.relational_angle",
    "keras_kd>RelationalDistance": "keras_kd.losses.relational_distance",
    "keras_kd>SigmoidKD": "keras_kd.losses.sigmoid_kd",
    "keras_kd>SimilarityPreserving": "keras_kd.losses.similarity_preserving",
    "keras_kd>SoftTargets": "keras_kd.losses.soft_targets",
    "keras_kd>VariationalInformation": "keras_kd.losses.variational_information",
    "keras_kd>MutualDistiller": "keras_kd.mutual.distiller",
    "keras_kd>QuantizationAware": "keras_kd.quantization.student",
    "keras_kd>Tap": "keras_kd.taps.tap",
    "keras_kd>Cached": "keras_kd.teachers.cached",
    "keras_kd>Ensemble": "keras_kd.teachers.ensemble",
    "keras_kd>KerasTeacher": "keras_kd.teachers.keras_model",
    "keras_kd>DeepestExit": "keras_kd.teachers.no_teacher",
    "keras_kd>VirtualTeacher": "keras_kd.teachers.no_teacher",
    "keras_kd>OnnxTeacher": "keras_kd.teachers.onnx",
    "keras_kd>EMA": "keras_kd.teachers.own_weights",
    "keras_kd>Snapshot": "keras_kd.teachers.own_weights",
    "keras_kd>SavedModelTeacher": "keras_kd.teachers.saved_model",
    "keras_kd>TFLiteTeacher": "keras_kd.teachers.tflite",
    "keras_kd>ClassShares": "keras_kd.weighting",
    "keras_kd>TeacherConfidence": "keras_kd.weighting",
    "keras_kd>TeacherCorrectness": "keras_kd.weighting",
    "keras_kd>TeacherEntropy": "keras_kd.weighting",
}


def without_places(config: Any) -> Any:
    """A configuration that says the same wherever a class of this package is defined.

    Keras writes the module of a class beside its registered name. What is compared with a digest or
    a text on disk must not change when a class moves to another file.
    """
    if isinstance(config, dict):
        made = {key: without_places(value) for key, value in config.items()}
        name = config.get("registered_name")
        if "module" in made and isinstance(name, str) and name.startswith("keras_kd>"):
            made["module"] = _MODULES_OF_0_1.get(name, "keras_kd")
        return made
    if isinstance(config, (list, tuple)):
        return [without_places(each) for each in config]
    return config
