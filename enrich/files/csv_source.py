"""CSV and TSV, losslessly: validated whole before use, typed only where every value writes back to its text."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from enrich.errors import InputError, did_you_mean
from enrich.files.find import first_duplicate, open_text, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from enrich.config import CsvOptions
    from enrich.files.find import SourceFile

    Skip = Literal["skip"]
    OnBadRow = Callable[[arrow_csv.InvalidRow], Skip]

BLOCK_SIZES = tuple(1 << power for power in (18, 21, 24, 27, 30))  # bytes parsed at once; a row must fit
SHOWN_ROWS = 5  # bad rows listed in an error

CANDIDATES: tuple[pa.DataType, ...] = (
    pa.bool_(),
    pa.int64(),
    pa.float64(),
    pa.date32(),
    *(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")),
)
NOTHING = pa.schema([])
TYPE_NAMES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}  # beside Arrow's own names (int64, string, timestamp[ms], …)


@dataclass(frozen=True, slots=True)
class CsvReader:
    """CSV files that were validated, ready to be streamed.

    Attributes:
        schema: the columns and their types, over all files.
        rows: rows per path, bad rows not counted.
        rejected: bad rows left out, over all files.
        options: how the files are written; the delimiter is set.
        names: every column of each path, in the file's order.
        blocks: bytes per block that hold the longest row, per path.
    """

    schema: pa.Schema
    rows: Mapping[str, int]
    rejected: int
    options: CsvOptions
    names: Mapping[str, list[str]]
    blocks: Mapping[str, int]

    def read(self, file: SourceFile, columns: Sequence[str], max_rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002  # batches follow the blocks
        """Stream at least one column of a file."""
        dialect = _Dialect(file, self.options, self.names[file.path], self.blocks[file.path])
        schema = pa.schema([self.schema.field(name) for name in columns])
        with readable(file.path):
            for batch in _text_batches(dialect, columns, _skip):
                arrays = [_typed(batch.column(field.name), field.type) for field in schema]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)


@dataclass(frozen=True, slots=True)
class _Dialect:
    """One file, how it is written, its column names and the bytes parsed at once."""

    file: SourceFile
    options: CsvOptions
    names: list[str]
    block: int


def scan_csv(
    files: Sequence[SourceFile],
    options: CsvOptions,
    columns: Callable[[Sequence[str]], list[str]],
    known: pa.Schema = NOTHING,
) -> CsvReader:
    """Read all files once, from end to end: validate them, count rows, find the columns' types.

    A column becomes bool, int64, float64, date32 or a timestamp only if every value in every file, written
    back by Arrow, is the text that was read; ``csv.types`` overrides that. Everything else stays string.
    Blank lines are no rows. Rejected rows go to ``csv.reject_file`` as they stand, in UTF-8.

    Args:
        files: at least one file.
        options: how they are written; the delimiter must be set.
        columns: chooses, from all names, those to be read.
        known: the types that columns had in files read before; they can only widen.

    Raises:
        InputError: naming the file, the line and what is wrong there.
    """
    _check_options(files, options)
    names = _agreed_names(files, options)
    first = names[files[0].path]
    overrides = _overrides(options.types, first)
    wanted = columns(first)
    before = {field.name: field.type for field in known}
    guesses = {name: _Guess(before.get(name)) for name in wanted if name not in overrides}
    forced = {name: overrides[name] for name in wanted if name in overrides}
    surveys = {
        file.path: _survey(_Dialect(file, options, names[file.path], 0), guesses, forced) for file in files
    }
    if options.bad_rows == "reject":
        _write_rejects([survey for survey in surveys.values() if survey.bad], options)
    schema = pa.schema([(name, forced.get(name) or guesses[name].type) for name in wanted])
    return CsvReader(
        schema=schema,
        rows={path: survey.rows for path, survey in surveys.items()},
        rejected=sum(survey.bad for survey in surveys.values()),
        options=options,
        names=names,
        blocks={path: survey.dialect.block for path, survey in surveys.items()},
    )


# --- options and headers -------------------------------------------------------------------------------


def _check_options(files: Sequence[SourceFile], options: CsvOptions) -> None:
    for key, value in (("delimiter", options.delimiter), ("quote", options.quote)):
        if value and not value.isascii():
            raise InputError(f"`input.csv.{key}` is {value!r}; it must be an ASCII character")
    try:
        "".encode(options.encoding)
    except LookupError as error:
        raise InputError(
            f"`input.csv.encoding`: {error}", hint="for example utf-8, latin-1, cp1252."
        ) from None
    if options.bad_rows != "reject":
        return
    if options.reject_file is None:
        raise InputError(
            "`input.csv.bad_rows` is reject, but there is no place for the rejected rows",
            hint="set `input.csv.reject_file`, for example rejected.csv",
        )
    if options.reject_file.resolve() in (Path(file.path).resolve() for file in files):
        raise InputError(
            f"`input.csv.reject_file` is {options.reject_file}, one of the input files",
            hint="put it outside the input folder.",
        )


def _overrides(types: Mapping[str, str], names: Sequence[str]) -> dict[str, pa.DataType]:
    for name in types:
        if name not in names:
            raise InputError(
                f"`input.csv.types` names `{name}`, no such column", hint=did_you_mean(name, names)
            )
    return {name: _type_named(text, name) for name, text in types.items()}


def _type_named(text: str, column: str) -> pa.DataType:
    try:
        found = TYPE_NAMES.get(text) or pa.type_for_alias(text)  # type: ignore[call-overload]  # any text may stand there
        pa.array([], pa.string()).cast(found)
    except (ValueError, pa.ArrowNotImplementedError):
        known = ["string", "int64", "float64", "bool", "date", "timestamp"]
        raise InputError(
            f"`input.csv.types.{column}` is {text!r}, which is no type that text can become",
            hint=did_you_mean(text, known),
        ) from None
    return found


def _agreed_names(files: Sequence[SourceFile], options: CsvOptions) -> dict[str, list[str]]:
    names = {file.path: _names(file, options) for file in files}
    (first, known), *others = names.items()
    for path, found in others:
        for name in sorted(set(known) ^ set(found)):
            has, lacks = (first, path) if name in known else (path, first)
            raise InputError(
                f"{has} has a column `{name}`, {lacks} has not", hint="give all files the same columns."
            )
    return names


def _names(file: SourceFile, options: CsvOptions) -> list[str]:
    with closing(_records(file, options)) as records:
        _, fields = next(records, (0, []))
    if not fields:
        raise InputError(f"{file.path} is empty: it has no row", hint="give it a header, or leave it out.")
    if not options.header:
        return [f"column_{number}" for number in range(1, len(fields) + 1)]
    if (name := first_duplicate(fields)) is not None:
        raise InputError(f"{file.path} has two columns `{name}`", hint="rename one of them in its header.")
    return fields


# --- types ---------------------------------------------------------------------------------------------


class _Guess:
    """Finds the type that every text of a column writes back from; refuted candidates are not tried again.

    Args:
        known: the type that the column had before, when that is known.
    """

    def __init__(self, known: pa.DataType | None = None) -> None:
        self._seen = known == pa.string() or known in CANDIDATES
        wider = (pa.int64(), pa.float64()) if known == pa.int64() else (known,)
        self._candidates = [type_ for type_ in CANDIDATES if not self._seen or type_ in wider]

    def look(self, texts: pa.Array[Any]) -> None:
        values = texts.drop_null()
        if len(values):
            self._seen = True
            self._candidates = [type_ for type_ in self._candidates if _writes_back(values, type_)]

    @property
    def type(self) -> pa.DataType:
        """The first candidate that holds; text where none does, or where there are only nulls."""
        return self._candidates[0] if self._seen and self._candidates else pa.string()


def _writes_back(texts: pa.Array[Any], type_: pa.DataType) -> bool:
    try:
        values = texts.cast(type_)
    except pa.ArrowInvalid:
        return False
    same = pc.all(pc.equal(values.cast(pa.string()), texts)).as_py()
    return same and (not pa.types.is_floating(type_) or pc.all(pc.is_finite(values)).as_py())


def _typed(texts: pa.Array[Any], type_: pa.DataType) -> pa.Array[Any]:
    if type_ == pa.string():
        return texts
    return (pc.utf8_trim_whitespace(texts) if pa.types.is_primitive(type_) else texts).cast(type_)


def _unfit(texts: pa.Array[Any], type_: pa.DataType) -> int | None:
    """Give the position of the first text that cannot become the type, or None."""
    try:
        _typed(texts, type_)
    except pa.ArrowInvalid:
        half = len(texts) // 2
        if not half:
            return 0
        left = _unfit(texts[:half], type_)
        return left if left is not None else half + (_unfit(texts[half:], type_) or 0)
    return None


# --- passes over a file --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Survey:
    """What a whole pass over a file found: its good and bad rows, and the block size that it needs."""

    dialect: _Dialect
    rows: int
    bad: int


def _survey(plan: _Dialect, guesses: Mapping[str, _Guess], forced: Mapping[str, pa.DataType]) -> _Survey:
    """Pass over a whole file; grow the block until its longest row fits."""
    problem: ValueError | None = None
    for block in BLOCK_SIZES:
        dialect = _Dialect(plan.file, plan.options, plan.names, block)
        try:
            with readable(plan.file.path, but=pa.ArrowInvalid):
                survey = _whole_pass(dialect, guesses, forced)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            _check_encoding(plan.file, plan.options.encoding)
            problem = error
            continue
        if survey.bad and plan.options.bad_rows == "error":
            raise _ragged(dialect, survey.bad)
        return survey
    raise InputError(f"{plan.file.path} cannot be read: {problem}")


def _whole_pass(
    dialect: _Dialect, guesses: Mapping[str, _Guess], forced: Mapping[str, pa.DataType]
) -> _Survey:
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
        _check_quotes(dialect)
    return _Survey(dialect, rows, bad)


def _has_rows(dialect: _Dialect) -> bool:
    """Tell a file that is a header alone, which Arrow does not read without a line end."""
    with closing(_records(dialect.file, dialect.options)) as records:
        return next(itertools.islice(records, int(dialect.options.header), None), None) is not None


def _text_batches(
    dialect: _Dialect, columns: Sequence[str], on_bad_row: OnBadRow
) -> Iterator[pa.RecordBatch]:
    """Stream columns as texts: null where nothing stands, empty where two quotes stand."""
    options = dialect.options
    encoding = codecs.lookup(options.encoding).name
    with (
        open_text(dialect.file) as stream,
        arrow_csv.open_csv(
            stream,  # type: ignore[arg-type]  # a NativeFile is a binary file
            read_options=arrow_csv.ReadOptions(
                use_threads=False,
                block_size=dialect.block,
                column_names=None if options.header else dialect.names,
                encoding="utf8" if encoding in ("utf-8", "utf-8-sig") else encoding,
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=options.delimiter or ",",
                quote_char=options.quote or False,
                newlines_in_values=True,
                invalid_row_handler=on_bad_row,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                include_columns=list(columns),
                null_values=options.null_values,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        ) as reader,
    ):
        yield from reader


def _skip(_: arrow_csv.InvalidRow) -> Skip:
    return "skip"


def _write_rejects(surveys: Iterable[_Survey], options: CsvOptions) -> None:
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


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read cells of any length."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _records(file: SourceFile, options: CsvOptions, *, end: str = "") -> Generator[tuple[int, list[str]]]:
    """Split a file into rows as Arrow does, slower, but each with the number of its first line.

    Args:
        file: the file.
        options: how it is written.
        end: a last line to add to the file's own.

    Yields:
        the line, counted from 1 with those inside quotes, and the fields of each row that is not blank.
    """
    with (
        readable(file.path),
        _long_fields(),
        open_text(file) as stream,
        io.TextIOWrapper(stream, encoding=options.encoding, newline="") as lines,  # type: ignore[type-var]  # a NativeFile is a binary file
    ):
        try:
            unmarked = itertools.chain([next(lines, "").removeprefix("\ufeff")], lines, [end])
            reader = csv.reader(
                unmarked,
                delimiter=options.delimiter or ",",
                quotechar=options.quote or None,
                quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
            )
            line = 1
            for fields in reader:
                if fields:
                    yield line, fields
                line = reader.line_num + 1
        except UnicodeDecodeError:
            _check_encoding(file, options.encoding)
            raise


def _ragged(dialect: _Dialect, count: int) -> InputError:
    width = len(dialect.names)
    uneven = (
        (line, len(fields))
        for line, fields in _records(dialect.file, dialect.options)
        if len(fields) != width
    )
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
        hint="correct them, or set `input.csv.bad_rows: reject` and `input.csv.reject_file` to leave them out.",
    )


def _check_quotes(dialect: _Dialect) -> None:
    """Refuse a quote that is never closed: it swallows the rest of the file into one cell."""
    end = "\N{END OF TEXT}"
    line, fields = 0, [end]
    for line, fields in _records(dialect.file, dialect.options, end=end):  # noqa: B007  # the last one counts
        pass
    if fields != [end]:
        raise InputError(
            f"{dialect.file.path} line {line}: a quote ({dialect.options.quote}) is opened in this row and never closed",
            hint="close it, or set `input.csv.quote` to what the file uses ('' for none).",
        )


def _check_values(
    dialect: _Dialect, texts: pa.Array[Any], before: int, *, name: str, type_: pa.DataType
) -> None:
    """Refuse a text that cannot become the type its column is given; ``before`` rows came earlier."""
    position = _unfit(texts, type_)
    if position is None:
        return
    width = len(dialect.names)
    whole = (line for line, fields in _records(dialect.file, dialect.options) if len(fields) == width)
    line = next(itertools.islice(whole, int(dialect.options.header) + before + position, None))
    raise InputError(
        f"{dialect.file.path} line {line}: `{name}` is {texts[position].as_py()!r:.100}, which is no {type_}",
        hint=f"correct it, or set `input.csv.types.{name}: string`.",
    )


def _check_encoding(file: SourceFile, encoding: str) -> None:
    """Refuse bytes that the declared encoding does not have, and say where the first of them is."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, position, chunk = 1, 0, b"start"
    with readable(file.path), open_text(file) as stream:
        while chunk:
            chunk = stream.read(BLOCK_SIZES[0])
            waiting = len(decoder.getstate()[0])
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                raise InputError(
                    f"{file.path} line {line}, byte {position - waiting + error.start}: "
                    f"{error.object[error.start : error.end]!r} is not {encoding}",
                    hint=f"set `input.csv.encoding` to what the file is written in, {_likely_encoding(file)}.",
                ) from None
            position += len(chunk)


def _likely_encoding(file: SourceFile) -> str:
    with open_text(file) as stream:
        begins = stream.read(2)
    marked = begins in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "by its first bytes utf-16" if marked else "for example cp1252 or latin-1"
