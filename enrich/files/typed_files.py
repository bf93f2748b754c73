"""What files with a schema of their own share: one schema for them all, and the name of a column that does not decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from enrich.base.location import is_url
from enrich.errors import InputError
from enrich.files.common_types import common_type
from enrich.files.input_files import first_duplicate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from enrich.files.input_files import SourceFile

Chooser = Callable[[Sequence[str]], list[str]]  # from all names to those that are read
Part = tuple[str, str, Callable[[], None]]  # a column, where in the file, and what reads it
LEAVE_OUT = "repair or write that file again, or leave the column out with input.columns."


def agreed_schema(schemas: Mapping[str, pa.Schema], rows: Mapping[str, int], columns: Chooser) -> pa.Schema:
    """Give one schema for all files, narrowed to the columns chosen, with the first one's metadata.

    What a file without rows says of its columns counts only where no file has any: writers guess there.
    """
    for path, schema in schemas.items():
        if (name := first_duplicate(schema.names)) is not None:
            raise InputError(f"{path} has two columns `{name}`", hint="rename one of them.")
    telling = {path: schema for path, schema in schemas.items() if rows[path]} or schemas
    (first, schema), *others = telling.items()
    agreed = {name: schema.field(name) for name in columns(schema.names)}
    for path, other in others:
        for name in dict.fromkeys([*schema.names, *other.names]):
            if name not in schema.names or name not in other.names:
                one, two = (str(s.field(name).type) if name in s.names else "absent" for s in (schema, other))
                raise _disagreement(name, one, first, two, path)
        for name, field in agreed.items():
            theirs = other.field(name)
            kind = common_type(field.type, theirs.type)
            if kind is None:
                raise _disagreement(name, str(field.type), first, str(theirs.type), path)
            agreed[name] = field.with_type(kind).with_nullable(field.nullable or theirs.nullable)
    fields = list(agreed.values())
    return pa.schema(fields).with_metadata(schema.metadata) if schema.metadata else pa.schema(fields)


def _disagreement(name: str, one: str, first: str, two: str, path: str) -> InputError:
    return InputError(
        f"files differ in the column `{name}`: {one} in {first}, {two} in {path}",
        hint="bring them to one schema, or name the files that have it.",
    )


def name_column(file: SourceFile, error: pa.ArrowException | OSError, pieces: Iterable[Part]) -> None:
    """Find the part of a file that cannot be read, one after the other; a disk or a store that fails is none.

    Raises:
        InputError: naming the column.
    """
    if isinstance(error, OSError) and (error.errno or is_url(file.path)):
        return
    for name, place, read in pieces:
        try:
            read()
        except (pa.ArrowException, OSError) as found:
            where = f"{file.path}, {place}" if place else file.path
            raise InputError(
                f"{where}: the column `{name}` cannot be read: {str(found).strip()}", hint=LEAVE_OUT
            ) from None
