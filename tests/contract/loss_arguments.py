"""The table of the losses' arguments."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd
from tests.contract.entries import Counts, Refused

TAKEN_TWICE = "multiple values for .*argument"


@dataclasses.dataclass(frozen=True)
class Loss:
    """How a loss is tried.

    Attributes:
        world: The features that it reads: see `worlds`.
        base: The arguments that it is compared with.
        arguments: An entry for each argument.
        make: The class, where that of the table cannot be made.
    """

    world: str
    base: dict
    arguments: dict
    make: type | None = None


@keras.saving.register_keras_serializable(package="contract")
class Gap(kd.losses.DistillationLoss):
    """The least that a loss of one's own is."""

    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean(keras.ops.square(teacher_outputs - student_outputs), axis=-1)


def _features(shape):
    rng = np.random.default_rng(2)
    return [rng.normal(size=shape).astype("float32") for _ in range(2)]


def of_probabilities(loss):
    """Its values of two models' probabilities."""
    labels = {"labels": np.arange(6) % 5} if loss.takes("labels") else {}
    return loss(*(tf.nn.softmax(x) for x in _features((6, 5))), **labels)


def slope_of_temperature(loss):
    """The gradient of what the loss trains, the temperature."""
    teacher, student = _features((6, 5))
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(loss(teacher, student))
    return tape.gradient(value, loss.trainable_variables)


MASKED = {"mask_input": Counts("keep")}
UNMASKED = {"mask_input": Refused("keep", "argument `mask_input`.*no positions")}
LAYERS = {"teacher_layer": Counts("deep"), "student_layer": Counts("deep")}
# Of losses that always read inner layers: whose labels and weights count.
INNER = {
    "teacher_layer": Counts("other"),
    "student_layer": Counts("other"),
    "output": Counts("b", against={"output": "a"}),
    "teacher_output": Refused("b", "teacher_output"),
}
COMMON = {
    "weight": Counts(3.0),
    "output": Counts("b"),
    "teacher_output": Counts("b"),
    "name": Counts("named"),
    "trainable": Counts(False),
    "dtype": Refused("float16", "argument `dtype`.*float32"),
    "autocast": Refused(True, TAKEN_TWICE),
    "activity_regularizer": Refused("l2", "argument `activity_regularizer`"),
}
TEMPERATURE = {"temperature": Counts(2.5)}
OUTPUT = {"output": "a"}
BOTH = {"teacher_layer": "deep", "student_layer": "deep"}
# What a loss reads, where it does not name several outputs itself.
READ = ("output", "teacher_output", "teacher_layer", "student_layer")
EMBEDDED = {
    "output": None,
    "positive": "a",
    "negative": "b",
    "query": "a",
    "teacher_query": "a",
}


# Where a value of no type is taken silently, or fails without a clear error, for now.
UNTYPED = ()
UNTYPED_BY_CLASS: dict = {}


def of_outputs(*parts, world="tokens", base=OUTPUT, make=None):
    arguments = {**COMMON, **LAYERS}
    for part in parts:
        arguments |= part
    return Loss(world, base, arguments, make)


def of_layers(*parts, world="tokens", base=BOTH):
    arguments = {**COMMON, **INNER}
    for part in parts:
        arguments |= part
    return Loss(world, base, arguments)


LOGITS = {
    "teacher_from_logits": Counts(False, probe=of_probabilities),
    "from_logits": Counts(False, probe=of_probabilities),
}

TABLE = {
    "AttentionMaps": of_layers(
        MASKED,
        {"loss": Counts("kl"), "kind": Counts("attention_scores")},
        world="attention",
    ),
    "AttentionTransfer": of_layers(UNMASKED, {"power": Counts(4)}, world="images"),
    "ChannelWise": of_outputs(TEMPERATURE, UNMASKED, world="images"),
    "ContrastiveRepresentation": of_outputs(
        UNMASKED,
        {
            "width": Counts(7),
            "temperature": Counts(0.2),
            "memory_size": Counts(4),
            "objective": Counts("nce", also={"dataset_size": 50}, against={}),
            "dataset_size": Counts(50, also={"objective": "nce", "dataset_size": 20}),
        },
        world="vectors",
    ),
    "CorrectedTargets": of_outputs(
        TEMPERATURE,
        MASKED,
        LOGITS,
        {"margin": Counts(0.9), "where": Counts("all"), "ignore_class": Counts(1)},
    ),
    "CosineHidden": of_layers(
        MASKED, {"projector": Counts("linear"), "loss": Refused("mse", TAKEN_TWICE)}
    ),
    "CurriculumTemperature": of_outputs(
        MASKED,
        LOGITS,
        {
            # The first temperature is `initial`; how it moves from there depends on both.
            "lowest": Counts(2.0, probe=slope_of_temperature),
            "highest": Counts(11.0, probe=slope_of_temperature),
            "initial": Counts(8.0),
            "per_row": Counts(True),
            "hidden_width": Counts(7, also={"per_row": True}),
            "reversal": Counts(0.25, probe=slope_of_temperature),
        },
    ),
    "DIST": of_outputs(
        TEMPERATURE,
        LOGITS,
        {
            "mask_input": Refused("keep", "argument `mask_input`"),
            "inter_class": Counts(0.5),
            "intra_class": Counts(0.5),
        },
        world="vectors",
    ),
    "DecoupledKD": of_outputs(
        TEMPERATURE, MASKED, LOGITS, {"target": Counts(3.0), "non_target": Counts(2.0)}
    ),
    "DistillationLoss": of_outputs(MASKED, make=Gap),
    "EmbeddingKD": of_outputs(
        MASKED,
        {
            "pooling": Counts("max"),
            "loss": Counts("cosine"),
            "normalize": Counts(True),
            "projector": Counts("linear"),
        },
    ),
    "FeatureHint": of_layers(MASKED, {"loss": Counts("cosine"), "projector": Counts("linear")}),
    "FlowMatrix": of_layers(
        UNMASKED,
        {
            "teacher_layers": Counts(("first", "other")),
            "student_layers": Counts(("first", "other")),
            "teacher_layer": Refused("deep", TAKEN_TWICE),
            "student_layer": Refused("deep", TAKEN_TWICE),
        },
        world="images",
        base={"teacher_layers": ("deep", "other"), "student_layers": ("deep", "other")},
    ),
    "HiddenStates": of_layers(
        MASKED,
        {
            "normalize": Counts(True),
            "projector": Counts("linear"),
            "loss": Refused("mse", TAKEN_TWICE),
        },
    ),
    "LearningWithoutForgetting": of_outputs(
        TEMPERATURE,
        MASKED,
        LOGITS,
        {"student_classes": Counts([4, 3, 2, 1, 0]), "teacher_classes": Counts([4, 3, 2, 1, 0])},
    ),
    "LogitStandardization": of_outputs(TEMPERATURE, MASKED, LOGITS),
    "LogitsMSE": of_outputs(MASKED, LOGITS),
    "MarginMSE": of_outputs(
        UNMASKED,
        {
            "positive": Counts(2),
            "negative": Counts([1, 3]),
            "query": Counts("b", also=EMBEDDED),
            "teacher_query": Counts("b", also=EMBEDDED),
            "similarity": Counts("cosine", also=EMBEDDED),
        },
        world="vectors",
    ),
    "NeuronSelectivity": of_outputs(UNMASKED, world="images"),
    "ProbabilisticTransfer": of_outputs(UNMASKED, world="vectors"),
    "RegressionKD": of_outputs(
        MASKED,
        {
            "loss": Counts("smooth_l1"),
            "bounded": Counts(True),
            "margin": Counts(9.0, also={"bounded": True}),
        },
    ),
    "RelationalAngle": of_outputs(UNMASKED, world="vectors"),
    "RelationalDistance": of_outputs(UNMASKED, world="vectors"),
    "ScoreMatrixKD": of_outputs(
        TEMPERATURE,
        UNMASKED,
        {name: Refused("b", f"`{name}`.*name the outputs") for name in READ},
        {
            "query": Counts("b"),
            "document": Counts("a"),
            "similarity": Counts("cosine"),
        },
        world="vectors",
        base={"query": "a", "document": "b"},
    ),
    "SequenceRelations": of_layers(
        MASKED,
        {
            "relations": Counts(["values"]),
            "relation_heads": Counts(3),
            "relation_weights": Counts([1.0, 2.0, 3.0]),
        },
        world="attention",
    ),
    "SigmoidKD": of_outputs(TEMPERATURE, MASKED, LOGITS),
    "SimilarityPreserving": of_outputs(UNMASKED, world="vectors"),
    "SoftTargets": of_outputs(
        TEMPERATURE,
        MASKED,
        LOGITS,
        {
            "divergence": Counts("jsd"),
            "mixing_weight": Counts(0.2, also={"divergence": "jsd"}),
        },
    ),
    "UniversalLogits": of_outputs(TEMPERATURE, MASKED, LOGITS),
    "VariationalInformation": of_layers(
        MASKED, {"hidden_width": Counts(7), "variance": Counts(2.0)}
    ),
}
