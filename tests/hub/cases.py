"""Pairs of KerasHub's models with losses on outputs and inner layers, and batches with padding."""

import dataclasses
from typing import Any

import keras
import numpy as np

import keras_kd as kd
from keras_kd.models import paths
from tests.hub import models

ALPHA, TEMPERATURE = 0.5, 2.0


@dataclasses.dataclass
class Case:
    """What a distiller is made of, and a batch.

    Attributes:
        teacher: A model.
        student: A smaller one.
        losses: Distillation losses.
        x: Inputs, which end in padding.
        y: Labels, or `None`: the student learns from the teacher alone.
        y_of_tokens: Whether the labels are those of positions.
        options: Arguments of `Distiller`.
        mask: The input that tells of the padding of the outputs.
    """

    teacher: Any
    student: Any
    losses: list
    x: dict
    y: Any = None
    y_of_tokens: bool = True
    options: dict = dataclasses.field(default_factory=dict)
    mask: str = "padding_mask"

    def distiller(self, learning_rate=0.01, **options):
        alpha = 0.0 if self.y is None else ALPHA
        distiller = kd.Distiller(
            self.teacher, self.student, self.losses, alpha=alpha, beta=1.0, **self.options
        )
        labels = self.y is not None
        distiller.compile(
            keras.optimizers.Adam(learning_rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True) if labels else None,
            weighted_metrics=["accuracy"] if labels else None,
            **options,
        )
        return distiller

    @property
    def counts(self):
        """Which positions are no padding."""
        return self.x[self.mask] != 0

    @property
    def data(self):
        return (self.x,) if self.y is None else (self.x, self.y)

    @property
    def data_of_other_padding(self):
        """The batch with other ids, and labels, where there is padding."""
        x = models.other_padding(self.x)
        assert any((x[name] != self.x[name]).any() for name in x)
        if self.y is None or not self.y_of_tokens:
            return (x, *self.data[1:])
        return x, np.where(self.counts, self.y, (self.y + 7) % models.TOKENS)


def spread(model, seed=0):
    """Kernels of size 0.3: with those that a model is made with all tokens look the same."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) > 1:
            weight.assign(rng.normal(scale=0.3, size=weight.shape))
    return model


def without_dropout(model):
    """A model that gives in training what it gives in inference."""
    for _, _, layer in paths.walk(model):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


def hints(block="backbone/transformer_layer_", attention="/self_attention_layer", **options):
    """On hidden states and attention of the last block of two, and of the student's only one."""
    layers = f"{block}1", f"{block}0"
    return [
        kd.losses.HiddenStates(*layers, **options),
        kd.losses.AttentionMaps(*[f"{layer}{attention}" for layer in layers], **options),
    ]


def bert():
    """The teacher takes `segment_ids`; padding is masked where a loss reads positions."""
    x, y = models.pairs_of_segments()
    return Case(
        spread(models.bert_classifier(layers=2, width=16)),
        without_dropout(spread(models.distilbert_classifier(layers=1, width=8), 1)),
        [kd.losses.SoftTargets(TEMPERATURE), *hints(mask_input="padding_mask")],
        x,
        y,
        y_of_tokens=False,
    )


def of_tokens(teacher, student, spelling):
    """`mask_input` of the distiller, or of its losses."""
    of_losses = {"mask_input": "padding_mask"} if spelling == "losses" else {}
    x, y, _ = models.next_tokens()
    return Case(
        spread(teacher),
        without_dropout(spread(student, 1)),
        [kd.losses.SoftTargets(TEMPERATURE, **of_losses), *hints(**of_losses)],
        x,
        y,
        options={} if of_losses else {"mask_input": "padding_mask"},
    )


def gpt2():
    student = models.gpt2(layers=1, width=8, seed=1)
    return of_tokens(models.gpt2(layers=2), student, "distiller")


def llama3():
    student = models.llama3(layers=1, width=8, heads=2, seed=1)
    return of_tokens(models.llama3(layers=2), student, "losses")


def t5():
    """A backbone without a head, whose encoder and decoder have padding of their own."""
    losses = []
    for side in ("encoder", "decoder"):
        mask = {"mask_input": f"{side}_padding_mask"}
        layers = [f"transformer_{side}_layer_{i}" for i in (1, 0)]
        losses += [
            kd.losses.RegressionKD(output=f"{side}_sequence_output", name=f"{side}_output", **mask),
            kd.losses.HiddenStates(*[kd.taps.Tap(x, index=0) for x in layers], **mask),
        ]
    return Case(
        spread(models.t5()), spread(models.t5(layers=1, seed=1), 1), losses, models.translations()
    )


@keras.saving.register_keras_serializable(package="keras_kd_tests")
class WhisperWithLogits(keras.Model):
    """A task of tokens, as keras-hub makes its own: the embedding, transposed, is the head."""

    def __init__(self, backbone, **kwargs):
        hidden = backbone.output["decoder_sequence_output"]
        logits = backbone.token_embedding(hidden, reverse=True)
        super().__init__(inputs=backbone.input, outputs=logits, **kwargs)
        self.backbone = backbone

    def get_config(self):
        return {"backbone": keras.saving.serialize_keras_object(self.backbone), "name": self.name}

    @classmethod
    def from_config(cls, config):
        backbone = keras.saving.deserialize_keras_object(config["backbone"])
        return cls(backbone, name=config["name"])


def whisper():
    x = models.speech()
    return Case(
        WhisperWithLogits(spread(models.whisper())),
        WhisperWithLogits(spread(models.whisper(layers=1, width=8, seed=1), 1)),
        [
            kd.losses.SoftTargets(TEMPERATURE),
            *hints("transformer_encoder_layer_"),
            *hints("transformer_decoder_layer_"),
        ],
        x,
        np.roll(x["decoder_token_ids"], -1, axis=1),
        options={"mask_input": "decoder_padding_mask"},
        mask="decoder_padding_mask",
    )


CASES = {"bert": bert, "gpt2": gpt2, "llama3": llama3, "t5": t5, "whisper": whisper}
