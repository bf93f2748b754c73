"""CSV and TSV, losslessly: validated whole before use, typed only where every value writes back to its text."""

from __future__ import annotations

import csv
import itertools
import re
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pyarrow import csv as arrow_csv

from enrich.base.values import WRITTEN
from enrich.errors import InputError
from enrich.files.csv_dialect import Dialect, check_encoding, check_options, dialect_of, records
from enrich.files.csv_quotes import quotes_are_sound
from enrich.files.csv_types import Guess, given_types, typed, unfit
from enrich.files.input_files import open_text, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from enrich.config.tables import CsvOptions
    from enrich.files.input_files import SourceFile

    Skip = Literal["skip"]
    OnBadRow = Callable[[arrow_csv.InvalidRow], Skip]

BLOCK_SIZES = tuple(1 << power for power in (18, 21, 24, 27, 30))  # bytes parsed at once; a row must fit
SHOWN_ROWS = 5  # bad rows listed in an error
MYSQL_NULL = "N"  # behind an escape character, outside quotes: null to MySQL, PostgreSQL and Hive
NOTHING = pa.schema([])


@dataclass(frozen=True, slots=True)
class CsvReader:
    """CSV files that were validated, ready to be streamed.

    Attributes:
        schema: the columns and their types, over all files.
        rows: rows per path, bad rows not counted.
        rejected: bad rows left out, over all files.
        dialects: how each path is written, with blocks that hold its longest row.
    """

    schema: pa.Schema
    rows: Mapping[str, int]
    rejected: int
    dialects: Mapping[str, Dialect]

    def read(
        self,
        file: SourceFile,
        columns: Sequence[str],
        max_rows: int,  # noqa: ARG002  # batches follow the blocks
        *,
        written: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Stream at least one column of a file."""
        dialect = self.dialects[file.path]
        schema = pa.schema([self.schema.field(name) for name in columns])
        decimal = dialect.options.decimal
        with readable(file.path):
            for batch in _text_batches(dialect, columns, _skip):
                arrays = [typed(batch.column(field.name), field.type, decimal) for field in schema]
                made = pa.RecordBatch.from_arrays(arrays, schema=schema)
                yield _with_written(made, batch, dialect.options) if written else made


def _with_written(made: pa.RecordBatch, texts: pa.RecordBatch, options: CsvOptions) -> pa.RecordBatch:
    """Add the cells as they stand, but those of columns that are declared as text, or whose numbers have commas."""
    for field in made.schema:
        declared = field.name in options.types and pa.types.is_string(field.type)
        commas = options.decimal != "." and pa.types.is_floating(field.type)
        if not declared and not commas:
            made = made.append_column(WRITTEN + field.name, texts.column(field.name))
    return made


def scan_csv(
    files: Sequence[SourceFile],
    options: CsvOptions,
    columns: Callable[[Sequence[str]], list[str]],
    known: pa.Schema = NOTHING,
    *,
    delimiter: str = ",",
) -> CsvReader:
    """Read all files once, from end to end: validate them, count rows, find the columns' types.

    A column becomes bool, int64, float64, date32 or a timestamp only if every value in every file, written
    back by Arrow, is the text that was read; ``csv.types`` overrides that. Everything else stays string.
    Blank lines are no rows. Rejected rows go to ``csv.reject_file`` as they stand, in UTF-8.

    Args:
        files: at least one file.
        options: how they are written.
        columns: chooses, from all names, those to be read.
        known: the types that columns had in files read before; they can only widen.
        delimiter: where neither the options nor a file's first line name one.

    Raises:
        InputError: naming the file, the line and what is wrong there.
    """
    check_options(files, options)
    dialects = {file.path: dialect_of(file, options, delimiter) for file in files}
    _check_names(dialects)
    first = list(dialects[files[0].path].names)
    overrides = given_types(options.types, first)
    wanted = columns(first)
    before = {field.name: field.type for field in known}
    guesses = {name: Guess(options.decimal, before.get(name)) for name in wanted if name not in overrides}
    forced = {name: overrides[name] for name in wanted if name in overrides}
    surveys = {path: _survey(dialect, guesses, forced) for path, dialect in dialects.items()}
    if options.bad_rows == "reject":
        _write_rejects([survey for survey in surveys.values() if survey.bad], options)
    schema = pa.schema([(name, forced.get(name) or guesses[name].type) for name in wanted])
    return CsvReader(
        schema=schema,
        rows={path: survey.rows for path, survey in surveys.items()},
        rejected=sum(survey.bad for survey in surveys.values()),
        dialects={path: survey.dialect for path, survey in surveys.items()},
    )


def _check_names(dialects: Mapping[str, Dialect]) -> None:
    (first, dialect), *others = dialects.items()
    for path, other in others:
        for name in sorted(set(dialect.names) ^ set(other.names)):
            has, lacks = (first, path) if name in dialect.names else (path, first)
            raise InputError(
                f"{has} has a column `{name}`, {lacks} has not", hint="give all files the same columns."
            )


# --- passes over a file --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _WholePass:
    """What a whole pass over a file found: its good and bad rows, and the block size that it needs."""

    dialect: Dialect
    rows: int
    bad: int


def _survey(plan: Dialect, guesses: Mapping[str, Guess], forced: Mapping[str, pa.DataType]) -> _WholePass:
    """Pass over a whole file; grow the block until its longest row fits."""
    problem: ValueError | None = None
    for block in BLOCK_SIZES:
        dialect = replace(plan, block=block)
        try:
            with readable(plan.file.path, but=pa.ArrowInvalid):
                survey = _whole_pass(dialect, guesses, forced)
        except (pa.ArrowInvalid, UnicodeError) as error:
            check_encoding(plan)
            problem = error
            continue
        if survey.bad and plan.options.bad_rows == "error":
            raise _ragged(dialect, survey.bad)
        return survey
    raise InputError(f"{plan.file.path} cannot be read: {problem}")


def _whole_pass(
    dialect: Dialect, guesses: Mapping[str, Guess], forced: Mapping[str, pa.DataType]
) -> _WholePass:
    bad = rows = 0
    tail: str | None = None

    def count(_: arrow_csv.InvalidRow) -> Skip:
        nonlocal bad
        bad += 1
        return "skip"

    last = dialect.names[-1]
    if _has_rows(dialect):
        for batch in _text_batches(dialect, list(dict.fromkeys([*guesses, *forced, last])), count):
            for name, guess in guesses.items():
                guess.look(batch.column(name))
            for name, type_ in forced.items():
                _check_values(dialect, batch.column(name), rows, name=name, type_=type_)
            rows += batch.num_rows
            tail = batch.column(last)[-1].as_py() if batch.num_rows else tail
    if bad or (tail and ("\n" in tail or "\r" in tail)):
        _check_closed(dialect)
    _check_quotes(dialect)
    return _WholePass(dialect, rows, bad)


def _has_rows(dialect: Dialect) -> bool:
    """Tell a file that is a header alone, which Arrow does not read without a line end."""
    with closing(records(dialect)) as rows:
        return next(itertools.islice(rows, int(dialect.options.header), None), None) is not None


def _text_batches(dialect: Dialect, columns: Sequence[str], on_bad_row: OnBadRow) -> Iterator[pa.RecordBatch]:
    """Stream columns as texts: null where nothing stands, empty where two quotes stand."""
    options = dialect.options
    renamed = dialect.unnamed or not options.header
    nulls = options.null_values + ([options.escape + MYSQL_NULL] if options.escape else [])
    with (
        dialect.open() as stream,
        arrow_csv.open_csv(
            stream,  # type: ignore[arg-type]  # a NativeFile is a binary file
            read_options=arrow_csv.ReadOptions(
                use_threads=False,
                block_size=dialect.block,
                skip_rows=dialect.declared + dialect.unnamed,
                column_names=list(dialect.names) if renamed else None,
                encoding="utf8" if dialect.encoding == "utf-8" else dialect.encoding,
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=options.quote or False,
                escape_char=options.escape or False,
                newlines_in_values=True,
                invalid_row_handler=on_bad_row,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                include_columns=list(columns),
                null_values=nulls,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        ) as reader,
    ):
        yield from reader


def _skip(_: arrow_csv.InvalidRow) -> Skip:
    return "skip"


def _write_rejects(surveys: Iterable[_WholePass], options: CsvOptions) -> None:
    """Write the bad rows of all files, as they stand, into the reject file; an empty one without any."""
    path = options.reject_file
    assert path is not None  # noqa: S101  # _check_options saw to it
    with readable(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as rejects:

            def write(row: arrow_csv.InvalidRow) -> Skip:
                rejects.write(row.text + "\n")
                return "skip"

            for survey in surveys:
                for _ in _text_batches(survey.dialect, survey.dialect.names[:1], write):
                    pass


# --- finding the line of an error ----------------------------------------------------------------------


def _ragged(dialect: Dialect, count: int) -> InputError:
    width = len(dialect.names)
    uneven = ((line, len(fields)) for line, fields in records(dialect) if len(fields) != width)
    shown = [
        f"  line {line}: {found} field{'s' * (found != 1)}"
        for line, found in itertools.islice(uneven, SHOWN_ROWS)
    ]
    more = [f"  and {count - len(shown)} more"] if count > len(shown) else []
    rows = "1 row has" if count == 1 else f"{count} rows have"
    return InputError(
        "\n".join(
            [
                f"{dialect.file.path}: {rows} another number of fields than the {width} expected:",
                *shown,
                *more,
            ]
        ),
        hint=_other_dialect(dialect)
        or "correct them, or set `input.csv.bad_rows: reject` and `input.csv.reject_file` to leave them out.",
    )


def _check_closed(dialect: Dialect) -> None:
    """Refuse a quote that is never closed: it swallows the rest of the file into one cell."""
    end = "\N{END OF TEXT}"
    line, fields = 0, [end]
    for line, fields in records(dialect, end=end):  # noqa: B007  # the last one counts
        pass
    if fields != [end]:
        raise InputError(
            f"{dialect.file.path} line {line}: a quote ({dialect.options.quote}) is opened in this row and never closed",
            hint=_other_dialect(dialect)
            or "close it, or set `input.csv.quote` to what the file uses ('' for none).",
        )


def _check_values(
    dialect: Dialect, texts: pa.Array[Any], before: int, *, name: str, type_: pa.DataType
) -> None:
    """Refuse a text that cannot become the type its column is given; ``before`` rows came earlier."""
    position = unfit(texts, type_, dialect.options.decimal)
    if position is None:
        return
    width = len(dialect.names)
    whole = (line for line, fields in records(dialect) if len(fields) == width)
    line = next(itertools.islice(whole, int(dialect.options.header) + before + position, None))
    raise InputError(
        f"{dialect.file.path} line {line}: `{name}` is {texts[position].as_py()!r:.100}, which is no {type_}",
        hint=f"correct it, or set `input.csv.types.{name}: string`.",
    )


def _check_quotes(dialect: Dialect) -> None:
    """Refuse text behind a closing quote: what the field is there can only be guessed.

    Raises:
        InputError: naming the line.
    """
    options = dialect.options
    if not options.quote:
        return
    is_ascii_based = not dialect.encoding.startswith(("utf-16", "utf-32", "utf_16", "utf_32", "cp037"))
    if is_ascii_based and (options.quote + (options.escape or "") + dialect.delimiter).isascii():
        with readable(dialect.file.path), open_text(dialect.file) as stream:
            if quotes_are_sound(
                stream, quote=options.quote, delimiter=dialect.delimiter, escape=options.escape
            ):
                return
    line = 1
    try:
        for line, _ in records(dialect, strict=True):  # noqa: B007  # the last one counts
            pass
    except csv.Error:
        raise InputError(
            f"{dialect.file.path}: behind line {line} a quote ({options.quote}) closes a field, and more text follows it",
            hint=_other_dialect(dialect) or "double the quotes within a field, or set `input.csv.quote`.",
        ) from None


def _other_escape(dialect: Dialect) -> str:
    """Say which option a file needs whose quotes have a backslash in front."""
    options = dialect.options
    if options.escape or not options.quote:
        return ""
    with readable(dialect.file.path), open_text(dialect.file) as stream:
        start = stream.read(BLOCK_SIZES[1]).decode(options.encoding, "ignore")
    if f"\\{options.quote}" not in start:
        return ""
    return "its quotes have a backslash in front: set `input.csv.escape: '\\'`."


def _other_dialect(dialect: Dialect) -> str:
    """Say which options a file needs whose header is one column full of other delimiters."""
    found = next((sign for sign in ";\t|" if len(dialect.names) == 1 and sign in dialect.names[0]), None)
    if found is None:
        return _other_escape(dialect)
    with closing(records(dialect)) as rows:
        texts = [dialect.delimiter.join(fields) for _, fields in itertools.islice(rows, 1, 1 + SHOWN_ROWS)]
    comma = dialect.delimiter == "," and any(re.search(r"\d,\d", text) for text in texts)
    decimal = ' and `input.csv.decimal: ","`, for its numbers have a comma' if comma else ""
    sign = r'"\t"' if found == "\t" else f"'{found}'"
    return f"its columns are parted by {found!r}: set `input.csv.delimiter: {sign}`{decimal}."
