"""A small Whisper of KerasHub for distil_whisper.py: tokens, models of logits, greedy decoding."""

import keras
import numpy as np
import speech
import tensorflow as tf

import keras_kd as kd

PAD, START, END = 0, 1, 2
LENGTH = 5  # four words and the end
DEPTH = {"encoder": 2, "decoder": 4}  # blocks of the teacher


def inputs_of(texts, sounds):
    """What the models take, and the next word at each place: `(x, y)`."""
    ids = np.full((len(texts), LENGTH + 1), PAD, "int32")
    for row, text in zip(ids, texts, strict=True):
        words = [END + 1 + speech.WORDS.index(word) for word in text.split()][: LENGTH - 1]
        row[: len(words) + 2] = [START, *words, END]
    x = {
        "encoder_features": np.asarray(sounds),
        "decoder_token_ids": ids[:, :-1],
        "decoder_padding_mask": (ids[:, 1:] != PAD).astype("int32"),
    }
    return x, ids[:, 1:]


def make_teacher(width):
    """A Whisper of 2 and 4 blocks, as a model of logits."""
    import keras_hub  # late: examples/distil_whisper.py says what is missing

    whole = keras_hub.models.WhisperBackbone(
        vocabulary_size=END + 1 + len(speech.WORDS),
        num_layers=DEPTH["decoder"],
        num_heads=2,
        hidden_dim=width,
        intermediate_dim=2 * width,
        num_mels=speech.MELS,
        max_encoder_sequence_length=speech.FRAMES,
        max_decoder_sequence_length=LENGTH,
    )
    kept = {name: list(range(depth)) for name, depth in DEPTH.items()}
    backbone = kd.students.shrink(whole, layers=kept, print_fn=None)
    # KerasHub's initial weights are those of wide models that are loaded: of so narrow a one they
    # keep attention flat, and nothing is learned for many epochs.
    for weight in backbone.trainable_variables:
        if "transformer" in weight.path and weight.path.endswith("kernel"):
            inner = np.prod(weight.shape[:-1] if "output" in weight.path else weight.shape[:1])
            weight.assign(keras.random.normal(weight.shape, stddev=float(inner) ** -0.5))
    # Smaller than Whisper's, or they drown what untrained convolutions give.
    positions = 0.3 * sines(speech.FRAMES // 2, width)
    backbone.encoder_position_embedding.position_embeddings.assign(positions)
    return Whisper(backbone, name="teacher")


def sines(length, width):
    """Whisper's positions of the encoder, which are not trained: `[length, width]`."""
    slow = np.exp(-np.log(10_000) * np.arange(width // 2) / (width // 2 - 1))
    angles = np.arange(length)[:, None] * slow
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


@keras.saving.register_keras_serializable(package="examples")
class Whisper(keras.Model):
    """KerasHub has no task of Whisper: the head is the embedding of words, transposed.

    Args:
        backbone: A `keras_hub.models.WhisperBackbone`.
        **kwargs: Of `keras.Model`.
    """

    def __init__(self, backbone, **kwargs):
        hidden = backbone.output["decoder_sequence_output"]
        logits = backbone.token_embedding(hidden, reverse=True)
        super().__init__(inputs=backbone.input, outputs=logits, **kwargs)
        self.backbone = backbone  # where `keras_kd.recipes.distil_whisper` finds the encoder

    def get_config(self):
        return {"backbone": keras.saving.serialize_keras_object(self.backbone), "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["backbone"]), name=config["name"])


def shrunk(teacher, layers):
    """The teacher's whole encoder, and some layers of its decoder."""
    small = kd.students.shrink(teacher.backbone, layers={"decoder": layers}, print_fn=None)
    return Whisper(small, name="student")


class Transcriber:
    """Greedy decoding: called with a batch that `recipe.encode` gave, it returns texts.

    Args:
        decoder: The decoder of a recipe.
    """

    def __init__(self, decoder):
        self._logits = tf.function(lambda x: decoder(x, training=False), reduce_retracing=True)

    def __call__(self, x):
        ids = np.full((len(x["encoded_features"]), LENGTH + 1), PAD, "int32")
        ids[:, 0] = START
        given = {
            "encoded_features": tf.convert_to_tensor(x["encoded_features"]),
            "decoder_padding_mask": tf.ones((len(ids), LENGTH), "int32"),
        }
        for place in range(LENGTH):
            # A decoder looks back alone: what stands behind does not matter.
            logits = self._logits({**given, "decoder_token_ids": tf.constant(ids[:, :-1])})
            ids[:, place + 1] = logits[:, place].numpy().argmax(-1)
            if (ids == END).any(axis=1).all():
                break
        return [text_of(row) for row in ids[:, 1:]]


def text_of(ids):
    """The words before the first token that is none."""
    ends = np.flatnonzero(ids <= END)
    words = ids[: ends[0]] if len(ends) else ids
    return " ".join(speech.WORDS[each - END - 1] for each in words)
