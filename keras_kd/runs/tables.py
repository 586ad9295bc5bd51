"""Tables of a run: files read with pandas, their label column, numbers and categories as features.

What a column becomes (mean, deviation, categories) is taken from the training part alone.
"""

import dataclasses
import difflib
import hashlib
import pathlib
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd.runs import samples
from keras_kd.runs.reading import Configuration
from keras_kd.runs.samples import Samples

_SUFFIXES = (".csv", ".parquet")
# More different texts are names or sentences, not categories.
_MOST_CATEGORIES = 100
# More different labels are measurements, not classes.
_MOST_CLASSES = 1000
_MOST_NAMED = 5
PLACE = "data.table"


@dataclasses.dataclass(frozen=True)
class Rows:
    """All rows of the files of a run.

    Attributes:
        frame: A pandas DataFrame.
        labels: The class of each row.
        classes: The names of the classes.
        indices: `{part: rows}`.
        digest: Of the files.
    """

    frame: Any
    labels: np.ndarray
    classes: list[str]
    indices: dict[str, np.ndarray]
    digest: str


def load(config: Configuration) -> Samples:
    """Reads the table, and makes a vector of numbers of each row.

    Raises:
        ValueError: A file or a column is not there, labels are missing, or a column cannot be used.
    """
    section = config.values.data.chosen
    rows = read_rows(config, section, PLACE, section.columns)
    names = section.columns or [each for each in rows.frame.columns if each != section.label]
    if section.label in names:
        raise config.error(
            f"{PLACE}.columns",
            f"the label {section.label!r} is among the columns, so the answer "
            "would be given. Leave it out.",
        )
    if not names:
        raise config.error(f"{PLACE}.file", "the label is its only column. Add columns to learn.")
    notes: list[str] = []
    columns = [_column(config, rows, name, notes) for name in names]
    inputs = np.concatenate([each.features for each in columns], axis=1)
    return Samples(
        kind="table",
        parts=samples.datasets(inputs, rows.labels, rows.indices, section.batch_size),
        counts={part: len(rows.indices[part]) for part in samples.PARTS},
        classes=rows.classes,
        batch_size=section.batch_size,
        shape=(inputs.shape[1],),
        dtype="float32",
        preprocessing={
            "input": "float32: for each column (value - mean) / deviation, or a 1 at the category",
            "columns": [each.described for each in columns],
            "classes": rows.classes,
        },
        digest=rows.digest,
        notes=notes,
    )


# Files, and the column of the labels.


def read_rows(config: Configuration, section: Any, place: str, columns: Any) -> Rows:
    """Reads the files of a section, and splits the rows.

    Args:
        config: The configuration.
        section: Its part with `file`, `label`, `validation` and `test`.
        place: The name of the section.
        columns: The columns that must be there; `None`: those of the first file.
    """
    pandas = validation.needs("pandas", "keras-kd distill with a table or texts", "run")
    frames = [_frame(config, section.file, f"{place}.file", pandas)]
    wanted = [*(columns or []), section.label]
    _check_columns(config, frames[0], wanted, place, section.file)
    columns = columns or list(frames[0].columns)
    files, starts, shares = [section.file], {}, {}
    for part in ("validation", "test"):
        given = getattr(section, part)
        if isinstance(given, str):
            starts[part] = sum(map(len, frames))
            frames.append(_frame(config, given, f"{place}.{part}", pandas))
            _check_columns(config, frames[-1], [*columns, section.label], place, given)
            files.append(given)
        else:
            shares[part] = given
    frame = pandas.concat(frames, ignore_index=True)
    labels, classes = _labels(config, frame, frames, files, section.label, f"{place}.label")
    try:
        indices = samples.split(labels[: len(frames[0])], classes, shares, config.values.seed)
    except ValueError as error:
        raise config.error(f"{place}.{next(iter(shares), 'file')}", str(error)) from None
    bounds = sorted([*starts.values(), len(frame)])
    for part, start in starts.items():
        indices[part] = np.arange(start, bounds[bounds.index(start) + 1])
    digest = hashlib.sha256()
    for path in files:
        digest.update(pathlib.Path(path).read_bytes())
    return Rows(frame, labels, classes, indices, digest.hexdigest())


def _frame(config, path, place, pandas):
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise config.error(
            place,
            f"expected a file that ends in {' or '.join(_SUFFIXES)}. Received: {path!r}. "
            "Save the table as one of these.",
        )
    if not pathlib.Path(path).is_file():
        raise config.error(
            place, f"there is no file {path!r}. Paths begin where the command is started."
        )
    if suffix == ".parquet":
        validation.needs("pyarrow", "a Parquet file", "run")
    read = pandas.read_csv if suffix == ".csv" else pandas.read_parquet
    try:
        frame = read(path)
    except (ValueError, OSError) as error:  # those of pandas and pyarrow are among these
        raise config.error(
            place, f"{path!r} cannot be read: {error}. Save it again as {suffix}."
        ) from error
    if len(frame) == 0:
        raise config.error(place, f"{path!r} has no rows. Name a file that has some.")
    frame.columns = [str(each) for each in frame.columns]
    return frame


def _check_columns(config, frame, wanted, place, path):
    known = list(frame.columns)
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            listed = ", ".join(map(repr, near or known[:10]))
            raise config.error(
                _place_of(config, place, name),
                f"{path!r} has no column {name!r}. {'Closest' if near else 'Columns'}: {listed}. "
                "Name one that it has.",
            )


def _place_of(config, place, name):
    section = config.plain()["data"][place.partition(".")[2]]
    for key in ("label", "text"):
        if section.get(key) == name:
            return f"{place}.{key}"
    named = section.get("columns") or []
    return f"{place}.columns.{named.index(name)}" if name in named else f"{place}.file"


def _labels(config, frame, frames, files, label, place):
    column = frame[label]
    empty = np.flatnonzero(column.isna().to_numpy())
    if len(empty):
        listed = ", ".join(_row(frames, files, int(i)) for i in empty[:_MOST_NAMED])
        more = f" and {len(empty) - _MOST_NAMED} more" if len(empty) > _MOST_NAMED else ""
        raise config.error(
            place,
            f"{len(empty)} of {len(column)} rows have no label: {listed}{more}. Fill them "
            "in, or remove these rows.",
        )
    values = column.to_numpy()
    kind = np.asarray(column.to_list()).dtype.kind
    if kind == "f" and not np.all(np.mod(values.astype("float64"), 1) == 0):
        raise config.error(
            place,
            f"column {label!r} holds numbers with decimals, and this command learns "
            "classes. Name a column of classes, or use keras_kd.Distiller in Python.",
        )
    if kind in "fiub":
        values = values.astype("int64")
    names, numbers = np.unique(
        values if kind in "fiub" else values.astype(str), return_inverse=True
    )
    if len(names) < 2:
        raise config.error(
            place, f"all rows have the label {str(names[0])!r}. Expected two classes or more."
        )
    if len(names) > _MOST_CLASSES:
        raise config.error(
            place,
            f"column {label!r} has {len(names)} different values, more than "
            f"{_MOST_CLASSES}. Name a column of classes.",
        )
    classes = [str(each) for each in names]
    first = len(frames[0])
    unknown = np.setdiff1d(numbers[first:], numbers[:first])
    if len(unknown):
        raise config.error(
            place,
            f"class {classes[unknown[0]]!r} is in the files of validation or test, and not "
            f"in {files[0]!r}. Add rows of it, or remove them.",
        )
    return numbers.reshape(-1).astype("int32"), classes


def _row(frames, files, index):
    for frame, path in zip(frames, files, strict=True):
        if index < len(frame):
            return f"{path!r} row {index + 1}"
        index -= len(frame)
    return str(index)


# Columns as features.


@dataclasses.dataclass(frozen=True)
class _Column:
    features: np.ndarray
    described: dict[str, Any]


def _column(config, rows, name, notes):
    column, training = rows.frame[name], rows.indices["train"]
    kind = column.dtype.kind
    if kind in "iufb":
        return _numbers(column, name, training, notes)
    if kind in "mM":
        raise config.error(
            f"{PLACE}.file",
            f"column {name!r} holds times, which are neither numbers nor "
            "categories. Leave it out with data.table.columns, or make numbers of them.",
        )
    return _categories(config, column, name, training, notes)


def _numbers(column, name, training, notes):
    values = column.to_numpy("float64", na_value=np.nan)
    values = np.where(np.isfinite(values), values, np.nan)
    known = values[training][~np.isnan(values[training])]
    mean = float(known.mean()) if len(known) else 0.0
    deviation = (float(known.std()) if len(known) else 0.0) or 1.0
    missing = int(np.isnan(values).sum())
    if missing:
        notes.append(f"column {name!r}: {missing} missing numbers count as the mean, {mean:.6g}")
    scaled = (np.where(np.isnan(values), mean, values) - mean) / deviation
    described = {"name": name, "mean": mean, "deviation": deviation}
    return _Column(scaled[:, None].astype("float32"), described)


def _categories(config, column, name, training, notes):
    is_missing = column.isna().to_numpy()
    values = np.where(is_missing, "", column.astype(str).to_numpy().astype(object)).astype(str)
    known = np.unique(values[training][~is_missing[training]]).tolist()
    if len(known) > _MOST_CATEGORIES:
        raise config.error(
            f"{PLACE}.file",
            f"column {name!r} has {len(known)} different texts, more than "
            f"{_MOST_CATEGORIES}, so they are no categories. Leave it out with data.table.columns.",
        )
    features = (values[:, None] == np.array(known, dtype=str)[None]) & ~is_missing[:, None]
    unknown = int((~features.any(axis=1)).sum())
    if unknown:
        notes.append(
            f"column {name!r}: {unknown} rows are of no category of the training part; all of its "
            "features are 0 there"
        )
    return _Column(features.astype("float32"), {"name": name, "categories": known})
