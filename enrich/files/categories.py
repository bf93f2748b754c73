"""Dictionary-encoded columns on their way out: plain categories, and the same ones for all batches of a file."""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types

from enrich.base.location import native
from enrich.files.common_types import as_schema, categories, has_dictionary, parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Give the schema as it is written: what no writer takes as categories, in a form that every one takes.

    Categories that are views of text become text, as Arrow's writers and readers have them; those that are nested
    values, each in its place, become these values.
    """
    fields = [field.with_type(_plain(field.type)) for field in schema]
    return pa.schema(fields).with_metadata(schema.metadata) if schema.metadata else pa.schema(fields)


def _plain(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.DictionaryType):
        return _plain_categories(kind)
    if not has_dictionary(kind):
        return kind
    fields = [kind.field(i) for i in range(kind.num_fields)]
    changed = [field.with_type(_plain(field.type)) for field in fields]
    if changed == fields:
        return kind
    if isinstance(kind, pa.StructType):
        return pa.struct(changed)
    if isinstance(kind, pa.MapType):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    is_large = types.is_large_list(kind) or types.is_large_list_view(kind)
    return pa.large_list(changed[0]) if is_large else pa.list_(changed[0])


def _plain_categories(kind: pa.DictionaryType[Any, Any, Any]) -> pa.DataType:
    values = kind.value_type
    if types.is_string_view(values) or types.is_binary_view(values):
        plain = pa.string() if types.is_string_view(values) else pa.binary()
        return categories(plain, index=kind.index_type, ordered=bool(kind.ordered))
    return _plain(values) if types.is_nested(values) or types.is_null(values) else kind


class Categories:
    """Gives the batches of one file common dictionaries, which only grow.

    Attributes:
        schema: of the batches given.
        grown: whether a later batch brought categories that the first had not.

    Args:
        schema: of the batches taken.
        bits: only dictionaries with an index of fewer bits are looked after.
    """

    def __init__(self, schema: pa.Schema, bits: int = 65) -> None:
        self.schema = plain_schema(schema)
        self.grown = False
        self._columns = [i for i, field in enumerate(self.schema) if has_dictionary(field.type, bits)]
        self._known: pa.RecordBatch | None = None

    def unify(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Give the same rows over the file's dictionaries.

        Raises:
            pa.ArrowInvalid: there are more categories than the index can count.
        """
        batch = as_schema(batch, self.schema)
        if not self._columns:
            return batch
        part = batch.select(self._columns)
        if self._known is not None:
            part = pa.Table.from_batches([self._known, part]).unify_dictionaries().to_batches()[-1]
            self.grown = self.grown or _sizes(part) != _sizes(self._known)
        self._known = part.slice(0, 0)
        for i, column in zip(self._columns, part.columns, strict=True):
            batch = batch.set_column(i, batch.schema.field(i), column)
        return batch


def _sizes(batch: pa.RecordBatch) -> list[int]:
    """Count the categories of every dictionary, at any depth."""
    return [len(found.dictionary) for column in batch.columns for found in _dictionaries(column)]


def _dictionaries(array: pa.Array[Any]) -> Iterator[pa.DictionaryArray[Any, Any]]:
    if isinstance(array, pa.DictionaryArray):
        yield array
        return
    for part in parts(array):
        yield from _dictionaries(part)


def write_whole_dictionaries(path: Path) -> None:
    """Write an Arrow file again whose dictionaries grew, now with each in one piece: Polars reads no others."""
    with tempfile.TemporaryFile(dir=path.parent, prefix=".beatra-categories-") as whole:
        with (
            pa.memory_map(native(str(path))) as grown,
            pa.ipc.open_file(grown) as reader,
            pa.ipc.new_file(whole, reader.schema) as writer,
        ):
            for number in range(reader.num_record_batches):
                found = reader.get_batch_with_custom_metadata(number)
                writer.write_batch(found.batch, custom_metadata=found.custom_metadata)
        whole.seek(0)
        with path.open("wb") as file:
            shutil.copyfileobj(whole, file)
