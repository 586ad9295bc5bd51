"""The configuration of a run, as pydantic models: which keys there are and what they may hold.

The descriptions are the reference table of `docs/guides/command.md`. Where something is wrong
`reading` names the line; what only data or models show is checked by the stages.
"""

from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field

VERSION = 1
# Applies wherever a number of samples is set apart.
_MOST_APART = 0.9

Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Function = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


def _apart(value: Any) -> Any:
    """A share of the training data, or a path."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and 0 < value <= _MOST_APART:
        return float(value)
    if isinstance(value, str) and value:
        return value
    raise ValueError(
        f"Expected a share of the data above 0 and at most {_MOST_APART}, such as 0.15, or a path."
    )


def _size(value: Any) -> Any:
    """`[height, width]`."""
    sides = [value, value] if isinstance(value, int) else value
    is_list = isinstance(sides, list) and len(sides) == 2
    if not is_list or not all(type(side) is int and side >= 1 for side in sides):
        raise ValueError("Expected a number of pixels, such as 96, or [height, width].")
    return sides


Apart = Annotated[Any, pydantic.PlainValidator(_apart)]
Size = Annotated[Any, pydantic.PlainValidator(_size)]


class Section(pydantic.BaseModel):
    """A mapping of the file; a key that it does not know is an error."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class _Choice(Section):
    """A section in which exactly one key is given."""

    choices: ClassVar[tuple[str, ...]] = ()

    @pydantic.model_validator(mode="after")
    def _exactly_one(self) -> "_Choice":
        given = [name for name in self.choices if getattr(self, name) is not None]
        if len(given) != 1:
            received = " and ".join(given) or "none of them"
            raise ValueError(
                f"Expected exactly one of: {', '.join(self.choices)}. Received: {received}. "
                f"{'Leave the others out.' if given else 'Add one of them.'}"
            )
        return self

    @property
    def kind(self) -> str:
        """The key that is given."""
        return next(name for name in self.choices if getattr(self, name) is not None)

    @property
    def chosen(self) -> Any:
        """Its value."""
        return getattr(self, self.kind)


class Images(Section):
    """A folder with a folder of images for each class."""

    folder: Text = Field(description="a folder that holds a folder of images for each class")
    size: Size = Field(description="height and width to which images are resized, or one number")
    batch_size: Whole = Field(32, description="images in a batch")
    color: Literal["rgb", "gray"] = Field("rgb", description="three channels, or one")
    validation: Apart = Field(0.15, description="a share of the images, or a folder like `folder`")
    test: Apart = Field(0.15, description="a share of the images, or a folder like `folder`")


class Table(Section):
    """A CSV or Parquet file of rows with a label."""

    file: Text = Field(description="a .csv or .parquet file")
    label: Text = Field(description="the column of the classes")
    columns: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="the columns that are read; default: all but the label"
    )
    batch_size: Whole = Field(32, description="rows in a batch")
    validation: Apart = Field(0.15, description="a share of the rows, or a file like `file`")
    test: Apart = Field(0.15, description="a share of the rows, or a file like `file`")


class Texts(Section):
    """A CSV or Parquet file of texts with a label."""

    file: Text = Field(description="a .csv or .parquet file")
    text: Text = Field(description="the column of the texts")
    label: Text = Field(description="the column of the classes")
    vocabulary_size: Annotated[int, Field(ge=3)] = Field(
        5000, description="words that are known, the most frequent of the training texts"
    )
    length: Whole = Field(64, description="words of a text that the models read")
    long_texts: Literal["refuse", "cut"] = Field(
        "refuse", description="what becomes of texts with more words than `length`"
    )
    batch_size: Whole = Field(32, description="texts in a batch")
    validation: Apart = Field(0.15, description="a share of the texts, or a file like `file`")
    test: Apart = Field(0.15, description="a share of the texts, or a file like `file`")


class Data(_Choice):
    """What is learned: exactly one of the four."""

    choices = ("images", "table", "texts", "function")
    images: Images | None = Field(None, description="a folder of images by class")
    table: Table | None = Field(None, description="a file of numbers and categories")
    texts: Texts | None = Field(None, description="a file of texts")
    function: Function | None = Field(
        None,
        description="`MODULE:FUNCTION`, which returns `{train, validation, test}` of batched "
        "datasets `(inputs, class indices)` in a fixed order",
    )


class Application(Section):
    """A model of `keras.applications`."""

    name: Text = Field(description="a class of `keras.applications`, such as `MobileNetV2`")
    weights: Text | None = Field(
        None, description="`imagenet`, or a .weights.h5 file of a model with the data's classes"
    )
    epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs for which it is trained here, with a new head; 0: as it is"
    )
    learning_rate: Positive = Field(1e-4, description="of that training")


class Preset(Section):
    """A classifier of KerasHub."""

    name: Text = Field(description="the name or the folder of a preset of KerasHub")
    epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs for which it is trained here; 0: as it is"
    )
    learning_rate: Positive = Field(1e-4, description="of that training")


class TrainedTeacher(Section):
    """A teacher that is trained here."""

    function: Function | None = Field(
        None, description="`MODULE:FUNCTION`, which returns the model; default: a built-in one"
    )
    width: Whole = Field(64, description="channels or units of the built-in one")
    depth: Whole = Field(4, description="repeated layers of the built-in one")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="of the built-in one")
    epochs: Whole = Field(20, description="epochs")
    learning_rate: Positive = Field(1e-3, description="of Adam")


class Teacher(_Choice):
    """What teaches: exactly one of the five."""

    choices = ("file", "application", "preset", "function", "train")
    file: Text | None = Field(
        None,
        description="a .keras, .onnx or .tflite file, a SavedModel's folder, or a TorchScript "
        "file (.pt)",
    )
    application: Application | None = Field(None, description="a model of `keras.applications`")
    preset: Preset | None = Field(None, description="a classifier of KerasHub")
    function: Function | None = Field(
        None, description="`MODULE:FUNCTION`, which returns what `Distiller` takes as a teacher"
    )
    train: TrainedTeacher | None = Field(None, description="a teacher that is trained here")
    from_logits: bool | None = Field(
        None, description="whether it returns logits; default: as its last activation tells"
    )
    output: Text | None = Field(None, description="the output that teaches, where it has several")
    endpoint: Text | None = Field(
        None, description="the function of a SavedModel that is called; default: Keras' own"
    )
    channels_first: bool = Field(
        False, description="whether an .onnx, .tflite or .pt file takes channels before pixels"
    )

    @pydantic.model_validator(mode="after")
    def _describes_a_file(self) -> "Teacher":
        given = [name for name in ("output", "endpoint", "channels_first") if getattr(self, name)]
        if given and self.file is None:
            raise ValueError(f"{given[0]} describes a file, and there is none. Leave it out.")
        return self


class Shrink(Section):
    """A student made of the teacher; see `kd.students.shrink`."""

    depth: Share = Field(1.0, description="share of the repeated blocks that stays")
    width: Share = Field(1.0, description="share of the channels that stays")
    weights: Literal["slice", "average", "new"] = Field(
        "slice", description="how it takes the teacher's weights, or `new` ones"
    )
    keep: list[Text] = Field([], description="layers whose width and blocks stay")


class Student(_Choice):
    """What is trained: exactly one of the four."""

    choices = ("shrink", "file", "preset", "function")
    shrink: Shrink | None = Field(None, description="the teacher, smaller")
    file: Text | None = Field(None, description="a .keras file")
    preset: Text | None = Field(None, description="a preset of KerasHub")
    function: Function | None = Field(
        None, description="`MODULE:FUNCTION`, which returns a Keras model"
    )


class Loss(Section):
    """A loss of `kd.losses`."""

    name: Text = Field(description="a class of `kd.losses`, such as `SoftTargets`")
    weight: NotNegative = Field(1.0, description="its factor among the distillation losses")
    arguments: dict[str, Any] = Field({}, description="arguments of the class by name")


class Temperature(Section):
    """A temperature, or the way from one to another over the epochs."""

    start: Positive = Field(description="in the first epoch; a number alone stays")
    end: Positive | None = Field(None, description="in the last epoch")
    schedule: Literal["linear", "cosine", "exponential"] = Field(
        "linear", description="the way between them"
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_number(cls, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return {"start": value} if is_number else value


class EarlyStop(Section):
    """Ends the student's training when it no longer improves."""

    monitor: Literal["val_loss", "val_accuracy"] = Field(
        "val_loss", description="what is watched on the validation data"
    )
    patience: Whole = Field(5, description="epochs without improvement")
    restore_best: bool = Field(True, description="whether the best epoch's weights are kept")


class Training(Section):
    """How student and baseline are trained."""

    epochs: Whole = Field(20, description="epochs")
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop", "nadam", "adagrad", "lion"] = Field(
        "adam", description="an optimizer of Keras"
    )
    learning_rate: Positive = Field(1e-3, description="its learning rate")
    decay: Literal["cosine"] | None = Field(
        None, description="`cosine`: the learning rate falls to 0 over all epochs"
    )
    early_stop: EarlyStop | None = Field(None, description="ends the training early")
    cache: bool = Field(False, description="the teacher runs once, and its outputs are stored")
    backup_every: Whole | None = Field(
        None, description="batches between two backups; default: one after each epoch"
    )


class Range(Section):
    """A range of numbers that `tune` tries."""

    low: float = Field(description="the least value")
    high: float = Field(description="the largest value")
    log: bool = Field(False, description="whether equal ratios are equally likely")

    @pydantic.model_validator(mode="after")
    def _rises(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(
                f"low must be below high. Received: low={self.low:g}, high={self.high:g}. Swap "
                "them, or give a list of values."
            )
        return self


def _space(value: Any) -> Any:
    if isinstance(value, list) and value:
        return value
    if isinstance(value, dict) and {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        return Range.model_validate(value).model_dump()
    raise ValueError(
        "Expected a list of values, or {low, high, log}. Write the key of a section with points, "
        "in one piece: `training.learning_rate: [0.001, 0.01]`."
    )


class Tune(Section):
    """The search for better settings."""

    trials: Whole = Field(20, description="how many settings are tried")
    epochs: Whole | None = Field(None, description="epochs of a trial; default: `training.epochs`")
    space: dict[str, Annotated[Any, pydantic.PlainValidator(_space)]] = Field(
        min_length=1,
        description="by key of this file, such as `training.learning_rate`, a list of values or "
        "`{low, high, log}`",
    )
    objective: Literal["accuracy", "loss"] = Field(
        "accuracy", description="`accuracy` or `loss`, on the validation data"
    )


TFLITE = (None, "float16", "dynamic", "int8", "int16x8", "int4")
ONNX = (None, "dynamic", "int8")


class Export(Section):
    """A file of the student."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] = Field(
        description="names the file and its row of the report"
    )
    format: Literal["tflite", "onnx"] = Field(description="`tflite` or `onnx`")
    quantization: Literal["float16", "dynamic", "int8", "int16x8", "int4"] | None = Field(
        None,
        description="tflite: `float16`, `dynamic`, `int8`, `int16x8`, `int4`; onnx: "
        "`dynamic`, `int8`; default: float32",
    )
    min_agreement: Share | None = Field(
        None,
        description="tflite: the least share of samples that must be answered as the student does",
    )

    @pydantic.model_validator(mode="after")
    def _fits_format(self) -> "Export":
        if self.format == "onnx" and self.quantization not in ONNX:
            raise ValueError(
                f"An onnx file can be quantized as: dynamic, int8. Received: {self.quantization}. "
                "Take one of these, or format: tflite."
            )
        if self.format == "onnx" and self.min_agreement is not None:
            raise ValueError("min_agreement is for format: tflite alone. Leave it out.")
        return self

    @property
    def file(self) -> str:
        """The name of the file in the run's folder."""
        return f"{self.name}.{self.format}"


class ReportOptions(Section):
    """What the report measures."""

    latency: bool = Field(True, description="whether latencies are measured")
    title: Text | None = Field(None, description="heading of the page; default: the run's name")
    metric: Literal["accuracy", "f1_macro", "f1_micro", "log_loss", "ece"] = Field(
        "accuracy", description="what is compared"
    )


class Config(Section):
    """A whole configuration."""

    version: Literal[1] = Field(description="1: the version of this format")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of all random numbers")
    data: Data = Field(description="what is learned")
    teacher: Teacher = Field(description="what teaches")
    student: Student = Field(description="what is trained")
    losses: Annotated[list[Loss], Field(min_length=1)] | None = Field(
        None, description="distillation losses; default: `SoftTargets`"
    )
    alpha: NotNegative = Field(0.5, description="factor of the labels")
    beta: NotNegative = Field(0.5, description="factor of the teacher")
    temperature: Temperature | None = Field(
        None, description="of the losses that have one: a number, or `{start, end}`"
    )
    training: Training = Field(default_factory=Training, description="how it is trained")
    baseline: bool = Field(
        True, description="whether the student is also trained with labels only, to compare"
    )
    tune: Tune | None = Field(None, description="a search for better settings before the training")
    exports: list[Export] = Field([], description="files for devices")
    report: ReportOptions = Field(default_factory=ReportOptions, description="the report")

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "Config":
        names = [export.name for export in self.exports]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"exports: the name {twice[0]!r} is there twice. Give each export its own name."
            )
        taken = sorted({export.file for export in self.exports} & {"student.keras"})
        if taken or {"labels only", "distilled", "teacher"} & set(names):
            raise ValueError("exports: teacher, distilled and labels only are rows of the report.")
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta are both 0, so nothing would be trained. Raise one.")
        if self.training.cache and self.beta == 0:
            raise ValueError("training.cache needs beta above 0: no teacher runs without it.")
        return self
