"""Parquet files, as shards of row groups."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.cache.sources import base
from keras_kd.cache.sources import files as source_files


class Parquet(base.CutSource):
    """Parquet files, cut by row groups.

    When the source is made, the end of each file is read, which says where its row groups are.
    Of a shard only the columns that are needed are read, and 64 KB at the end of each of its files.

    Columns become tensors: numbers and booleans `[batch]`, texts and bytes `[batch]` of
    `tf.string`, lists of one size `[batch, size]`, other lists `tf.RaggedTensor`, structures dicts
    of such. Missing values, times and decimals are refused: replace them in the files.

    Args:
        files: A path, a pattern such as `"data/*.parquet"`, whose files are sorted by name, or a
            list of such; or addresses, such as `"s3://bucket/data/*.parquet"`, which fsspec opens
            with its package for the store and the settings of its environment.
        element: A function from a dict of columns, tensors `[batch, ...]`, to `inputs`, `(inputs,
            labels)` or `(inputs, labels, weights)` of the batch, in TensorFlow operations.
        batch_size: Rows of a batch. The last one of a shard may have fewer.
        row_groups_per_shard: Row groups of a shard, of one file or several. The last shard may
            have fewer.
        columns: The names of the columns to read; of a field of a structure `"name.field"`.
            Default: all.
        augment: A function `(inputs[, labels[, weights]], seed)` of a sample that returns the one
            to take its place, with stateless random operations; see `kd.cache.sources`.
        seed: An integer, at least 0, for other augmentations.

    Raises:
        ValueError: An argument is wrong, no file is there, files lack a column, or a column is of a
            type that has no tensor.
        ImportError: pyarrow is missing, or what an address needs.
        FileNotFoundError: When a shard is read: a file is gone. One whose size has changed is a
            `ValueError`.

    Example:

    ```python
    import pathlib
    import tempfile
    import numpy as np
    import pandas as pd
    import keras_kd as kd

    folder = pathlib.Path(tempfile.mkdtemp())
    table = pd.DataFrame({"a": np.arange(100.0), "b": np.ones(100), "label": np.arange(100) % 3})
    table.to_parquet(folder / "data.parquet", engine="pyarrow", row_group_size=25)


    def element(columns):
        return {"a": columns["a"], "b": columns["b"]}, columns["label"]


    source = kd.cache.sources.Parquet(
        folder / "*.parquet", element, batch_size=10, row_groups_per_shard=2
    )
    assert source.shards == 2
    inputs, labels = next(iter(source(0, 1)))
    assert inputs["a"].numpy()[0] == 50.0
    ```
    """

    _reads_batches = True

    def __init__(
        self,
        files: str | os.PathLike | Sequence,
        element: Callable,
        *,
        batch_size: int,
        row_groups_per_shard: int = 1,
        columns: Sequence[str] | None = None,
        augment: Callable | None = None,
        seed: int = 0,
    ) -> None:
        self._element = validation.function("element", element, ("columns",))
        batch_size = validation.integer("batch_size", batch_size, 1)
        self._per_shard = validation.integer("row_groups_per_shard", row_groups_per_shard, 1)
        if columns is not None:
            columns = validation.names("columns", columns, "a list of names of columns, or None")
            if not columns or not all(isinstance(each, str) for each in columns):
                raise invalid("columns", "a list of names of columns, or None", repr(columns))
        self._columns: Any = columns
        _pyarrow()
        self._files = source_files.find("files", files, stores=True)
        self._schema: Any = None
        # The file of each row group, its number there, its first row and how many rows it has.
        self._groups: list[tuple[int, int, int, int]] = []
        for number in range(len(self._files)):
            self._look_at(number)
        if not self._groups:
            raise invalid("files", "files with rows", f"{len(self._files)} files without a row")
        super().__init__(-(-len(self._groups) // self._per_shard), batch_size, augment, seed)

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "files": self._files.describe(),
            "row_groups": len(self._groups),
            "rows": sum(group[-1] for group in self._groups),
            "row_groups_per_shard": self._per_shard,
            "columns": [[field.name, *_parts(field.type)] for field in self._schema],
            "element": base.name_of(self._element),
        }

    def _look_at(self, number: int) -> None:
        """Finds the row groups of a file; raises unless its columns are those of the others."""
        path = self._files.path(number)
        with self._open(number) as file:
            schema = self._chosen(file.schema_arrow, path)
            if self._schema is None:
                self._schema = schema
                for field in schema:
                    _check_type(field.name, field.type, path)
            elif not self._schema.equals(schema):
                raise ValueError(
                    f"All files must have the same columns. {self._files.path(0)!r} has "
                    f"{_shown(self._schema)}. Received: {path!r} with {_shown(schema)}"
                )
            first = 0
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if rows:
                    self._groups.append((number, group, first, rows))
                first += rows

    @contextlib.contextmanager
    def _open(self, number: int) -> Iterator[Any]:
        parquet, arrow = _pyarrow()
        path = self._files.path(number)
        with contextlib.ExitStack() as stack:
            opened = path if self._files.store is None else None
            opened = opened or stack.enter_context(self._files.open(number))
            try:
                file = parquet.ParquetFile(opened, pre_buffer=True)
            except arrow.ArrowInvalid as error:
                raise ValueError(f"{path!r} is not a Parquet file: {error}") from error
            yield stack.enter_context(file)

    def _chosen(self, schema: Any, path: str) -> Any:
        """The part of a file's schema that is read."""
        if self._columns is None:
            return schema.remove_metadata()
        _, arrow = _pyarrow()
        tops = list(dict.fromkeys(self._top(schema, each) for each in self._columns))
        missing = [each for each in tops if each not in schema.names]
        if missing:
            raise ValueError(
                f"{path!r} has no column {missing[0]!r}. Expected columns={self._columns}. "
                f"Received: {_shown(schema)}"
            )
        return arrow.schema([self._pruned(schema.field(each), each) for each in tops])

    @staticmethod
    def _top(schema: Any, column: str) -> str:
        return column if column in schema.names else column.partition(".")[0]

    def _pruned(self, field: Any, path: str) -> Any:
        """A field with those fields of its structure that are read."""
        _, arrow = _pyarrow()
        if path in self._columns or not arrow.types.is_struct(field.type):
            return field.remove_metadata()
        kept = [
            self._pruned(each, f"{path}.{each.name}")
            for each in (field.type.field(i) for i in range(field.type.num_fields))
            if any(f"{c}.".startswith(f"{path}.{each.name}.") for c in self._columns)
        ]
        return arrow.field(field.name, arrow.struct(kept), field.nullable)

    def _shard_groups(self, shard: int) -> list[tuple[int, int, int, int]]:
        return self._groups[shard * self._per_shard : (shard + 1) * self._per_shard]

    def _check(self, shard: int) -> None:
        for number in dict.fromkeys(group[0] for group in self._shard_groups(shard)):
            self._files.check(number)

    def _rows(self, shard: int) -> int:
        return sum(group[-1] for group in self._shard_groups(shard))

    def _read(self, shard: int) -> tf.data.Dataset:
        groups, element = self._shard_groups(shard), self._element

        def batches() -> Iterator[tuple]:
            for places, table in self._slices(groups):
                columns = {
                    name: _tensor(name, table.column(name).combine_chunks())
                    for name in table.column_names
                }
                yield places, columns

        spec = {field.name: _spec(field.type) for field in self._schema}
        return base.generated(batches, spec).map(
            lambda places, columns: (places, element(columns)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def _slices(self, groups: list[tuple[int, int, int, int]]) -> Iterator[tuple]:
        """Tables of `batch_size` rows, with their places, across row groups and files."""
        _, arrow = _pyarrow()
        size = self._batch_size
        places, table = np.empty((0, 2), "int64"), None
        for number in dict.fromkeys(group[0] for group in groups):
            with self._open(number) as file:
                for _, group, first, rows in (each for each in groups if each[0] == number):
                    read = file.read_row_group(group, columns=self._columns)
                    table = read if table is None else arrow.concat_tables([table, read])
                    places = np.concatenate([places, base.rows(first, first + rows, number)])
                    whole = len(places) - len(places) % size
                    for start in range(0, whole, size):
                        yield places[start : start + size], table.slice(start, size)
                    places, table = places[whole:], table.slice(whole)
        if len(places):
            yield places, table


def _pyarrow() -> tuple[Any, Any]:
    parquet = validation.needs("pyarrow.parquet", "kd.cache.sources.Parquet", "parquet")
    return parquet, validation.needs("pyarrow", "kd.cache.sources.Parquet", "parquet")


def _shown(schema: Any) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _check_type(name: str, kind: Any, path: str) -> None:
    _, arrow = _pyarrow()
    types = arrow.types
    if types.is_struct(kind):
        for field in (kind.field(i) for i in range(kind.num_fields)):
            _check_type(f"{name}.{field.name}", field.type, path)
    elif _is_list(kind):
        inner = kind.value_type
        if not (_is_plain(inner) or (types.is_fixed_size_list(kind) and _is_list(inner))):
            raise _untyped(name, kind, path)
        if not _is_plain(inner):
            _check_type(name, inner, path)
    elif not _is_plain(kind) and not types.is_dictionary(kind):
        raise _untyped(name, kind, path)


def _untyped(name: str, kind: Any, path: str) -> ValueError:
    return ValueError(
        f"Column {name!r} of {path!r} has the type {kind}, which has no tensor. Expected numbers, "
        "booleans, texts, bytes, and lists and structures of them. Leave it out with `columns`, or "
        "convert it in the files."
    )


def _is_list(kind: Any) -> bool:
    _, arrow = _pyarrow()
    types = arrow.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_text(kind: Any) -> bool:
    _, arrow = _pyarrow()
    types = arrow.types
    return any(
        test(kind)
        for test in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    )


def _is_plain(kind: Any) -> bool:
    _, arrow = _pyarrow()
    types = arrow.types
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return is_number or _is_text(kind)


def _spec(kind: Any, rows: tuple = (None,)) -> Any:
    """The `TypeSpec` of a column."""
    _, arrow = _pyarrow()
    if arrow.types.is_struct(kind):
        return {kind.field(i).name: _spec(kind.field(i).type) for i in range(kind.num_fields)}
    if arrow.types.is_fixed_size_list(kind):
        return _spec(kind.value_type, (*rows, kind.list_size))
    if _is_list(kind):
        return tf.RaggedTensorSpec((None, None), _dtype(kind.value_type), row_splits_dtype=tf.int64)
    return tf.TensorSpec(rows, _dtype(kind))


def _parts(kind: Any) -> list[str]:
    """What tensors a column is, for JSON: pyarrow's own names of types change when pickled."""
    return [f"{each.dtype.name} {each.shape}" for each in tf.nest.flatten(_spec(kind))]


def _dtype(kind: Any) -> tf.DType:
    _, arrow = _pyarrow()
    kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
    return tf.string if _is_text(kind) else tf.as_dtype(kind.to_pandas_dtype())


def _tensor(name: str, array: Any) -> Any:
    """A column of a batch as an array, a ragged tensor or a dict of them."""
    _, arrow = _pyarrow()
    kind = array.type
    if array.null_count:
        raise ValueError(
            f"Column {name!r} has {array.null_count} missing values in a batch of {len(array)} "
            "rows. Replace them in the files, or leave the column out with `columns`."
        )
    if arrow.types.is_dictionary(kind):
        return _tensor(name, array.dictionary_decode())
    if arrow.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        fields = zip(names, array.flatten(), strict=True)
        return {each: _tensor(f"{name}.{each}", field) for each, field in fields}
    if arrow.types.is_fixed_size_list(kind):
        inner = _tensor(name, array.flatten())
        return inner.reshape(len(array), kind.list_size, *inner.shape[1:])
    if _is_list(kind):
        lengths = array.value_lengths().to_numpy(zero_copy_only=False).astype("int64")
        values = tf.constant(_tensor(name, array.flatten()), _dtype(kind.value_type))
        return tf.RaggedTensor.from_row_lengths(values, lengths)
    return array.to_numpy(zero_copy_only=False)
