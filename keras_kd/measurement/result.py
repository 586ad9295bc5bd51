"""`Measurement`: the result of `keras_kd.measure`, as an object and as a table."""

import dataclasses
import textwrap

import numpy as np

from keras_kd._utils import tables
from keras_kd._utils.markup import element
from keras_kd._utils.serialization import plain

TABLE_WIDTH = 100
_FIRST = 24
_OF_SAMPLES = ("predictions", "labels", "weights", "counted", "sample_scores")
_BYTES = ("bytes", "gzip_bytes", "peak_activation_bytes")


@dataclasses.dataclass(frozen=True, repr=False)
class Measurement:
    """The result of `keras_kd.measure`. `print`, a notebook and the prompt show a short table.

    Args:
        name: The model's name, or the file's without its folder.
        kind: `"keras"`, `"tflite"`, `"onnx"`; `"function"` or `"texts"` for generated text.
        task: One of the tasks of `keras_kd.measure`.
        samples: How many samples count: those with a label and a weight above 0. Where each
            position of a sample has a label, each position is one; of a language model a text, of
            a retrieval a query, of a similarity a pair.
        quality: Figures by name. Shares and probabilities lie in 0 to 1, `log_loss` is in nats,
            `bleu` and `chrf` in 0 to 100, `mae` and `rmse` in the unit of the labels; `wer` and
            `cer` are shares that may exceed 1.
        per_class: A dict for each class: `label`, `support` (the sum of its samples' weights),
            `recall`, `precision`, `f1`; 0 where they are 0 / 0.
        reliability: A dict for each bin of the confidence: `low`, `high`, `count` (samples),
            `weight` (their sum), `confidence`, `accuracy`; the last two are `None` where there is
            no sample.
        confusion: Rows are the truth, columns the prediction, in samples or sums of their weights;
            `None` above 100 classes and where samples have several labels.
        teacher: `agreement`, `kl` and `mean_abs_difference`; of embeddings `agreement` or
            `spearman`, and `cosine`; or `None`.
        size: `parameters`, `trainable_parameters`, `bytes`, `gzip_bytes`, `macs` (of one sample),
            `peak_activation_bytes`; those that are known.
        latency: `runtime`, `threads`, `batch_size`, `warmup`, `runs`, `median_us`, `p95_us`
            (microseconds), or `None`.
        notes: What could not be measured and why, in words.
        predictions: The class index of each sample that counts, a 0 or 1 for each of its labels,
            its numbers, its text, its tokens; the rank of a query's first document, the score of a
            pair. Not in `to_dict()`, as all that follows.
        labels: The truth, in the same form; of a query its item.
        weights: Their weights, or `None` where all are equal.
        counted: Bool `[samples, positions]` (1 where a sample has one label): which of all the data
            count, or `None`: all.
        sample_scores: For figures that are means or ratios of sums over samples the parts of each,
            by which `keras_kd.report` tests them.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)).astype("float32"), np.arange(64) % 3
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    found = kd.measure(student, (x, y), latency=False)
    assert isinstance(found, kd.measurement.Measurement)
    print(found)
    print(found.quality["accuracy"], found.size["macs"])
    ```
    """

    name: str
    kind: str
    task: str
    samples: int
    quality: dict
    per_class: list = dataclasses.field(default_factory=list)
    reliability: list = dataclasses.field(default_factory=list)
    confusion: list | None = None
    teacher: dict | None = None
    size: dict = dataclasses.field(default_factory=dict)
    latency: dict | None = None
    notes: list = dataclasses.field(default_factory=list)
    predictions: np.ndarray | None = dataclasses.field(default=None, compare=False)
    labels: np.ndarray | None = dataclasses.field(default=None, compare=False)
    weights: np.ndarray | None = dataclasses.field(default=None, compare=False)
    counted: np.ndarray | None = dataclasses.field(default=None, compare=False)
    sample_scores: dict = dataclasses.field(default_factory=dict, compare=False)

    def to_dict(self) -> dict:
        """All but what there is for each sample, as JSON takes it; infinities become `None`."""
        fields = [each.name for each in dataclasses.fields(self)]
        return {name: plain(getattr(self, name)) for name in fields if name not in _OF_SAMPLES}

    def __repr__(self):
        return str(self)

    def __str__(self):
        return format_table(self)

    def _repr_html_(self):
        rows = [
            [title if i == 0 else "", name, value]
            for title, section in _sections(self)
            for i, (name, value) in enumerate(section.items())
        ]
        return tables.inline(
            element("p", _head(self), class_="kd-title"),
            tables.table([["", "", ""], *rows], class_="kd-last") if rows else None,
            tables.sentences(None, self.notes),
        )


def format_table(measurement: Measurement) -> str:
    """A measurement as a short table for a terminal, lines of at most 100 characters."""
    lines = [_head(measurement)]
    for title, section in _sections(measurement):
        lines += [
            f"{title if i == 0 else '':<9}{name:<{_FIRST}}{value:>16}"
            for i, (name, value) in enumerate(section.items())
        ]
    for note in measurement.notes:
        lines += textwrap.wrap(f"- {note}", TABLE_WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _head(measurement):
    name = f"{measurement.name} ({measurement.kind}, {measurement.task})"
    return f"{name}: {measurement.samples:,} samples"


def _sections(measurement):
    """`(title, {name: text})` of what is known."""
    return [
        ("quality", {k: f"{v:.4f}" for k, v in measurement.quality.items()}),
        ("teacher", {k: f"{v:.4f}" for k, v in (measurement.teacher or {}).items()}),
        ("size", {k: _size(k, v) for k, v in measurement.size.items()}),
        ("latency", _latency(measurement.latency)),
    ]


def _size(name, value):
    return f"{value:,.0f} B" if name in _BYTES else f"{value:,.0f}"


def _latency(latency):
    if latency is None:
        return {}
    return {
        latency["runtime"]: f"{latency['threads']} thread(s)",
        "median": f"{latency['median_us']:,.1f} us",
        "95th percentile": f"{latency['p95_us']:,.1f} us",
    }
