"""How one CSV file is written: found out from its begin and the options; its bytes opened, and split into rows with lines."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import logging
import re
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from enrich.config import Place, refuse
from enrich.errors import InputError
from enrich.files.csv_escapes import EscapedText
from enrich.files.input_files import first_duplicate, open_text, readable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import pyarrow as pa

    from enrich.config.tables import CsvOptions
    from enrich.files.input_files import SourceFile

READ_BYTES = 1 << 18  # bytes looked at once for what is no text
UTF8 = ("utf-8", "utf-8-sig")
DECLARED = re.compile(r'\ufeff?"?sep=(.)"?[\r\n]*')  # the line that Excel takes the delimiter from
ROW_NAMES = "row_names"  # the column that R's header does not name
LOOKED_AT = 5  # rows that must have one field more than such a header

log = logging.getLogger("enrich")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One file and how it is written.

    Attributes:
        delimiter: between fields.
        declared: whether a first line tells the delimiter; it is no row.
        header: whether a line names the columns.
        names: of the columns, in the file's order.
        unnamed: whether the first of them has no name in the header, as R leaves row names without one.
        block: bytes parsed at once.
    """

    file: SourceFile
    options: CsvOptions
    delimiter: str
    declared: bool = False
    names: tuple[str, ...] = ()
    unnamed: bool = False
    block: int = 0

    @property
    def encoding(self) -> str:
        """Give the encoding of what `open` gives, as Python calls it."""
        name = codecs.lookup(self.options.encoding).name
        return "utf-8" if name in UTF8 or self.options.escape else name

    def open(self) -> pa.NativeFile | io.RawIOBase:
        """Open the file from its start, as bytes in which escape characters escape something or are doubled."""
        stream = open_text(self.file)
        escape = self.options.escape
        if escape is None:
            return stream
        text = io.TextIOWrapper(stream, encoding=self.options.encoding, newline="")  # type: ignore[type-var]  # a NativeFile is a binary file
        return EscapedText(text, escape=escape, quote=self.options.quote, delimiter=self.delimiter)


def dialect_of(file: SourceFile, options: CsvOptions, default: str) -> Dialect:
    """Find out how a file is written.

    Args:
        file: the file.
        options: what is known of it.
        default: the delimiter, unless the options or the file's first line name another.

    Raises:
        InputError: it is empty, or a column stands in it twice.
    """
    declared = DECLARED.fullmatch(_first_line(file, options))
    delimiter = options.delimiter or (declared[1] if declared else default)
    dialect = Dialect(file, options, delimiter, declared is not None)
    with closing(records(dialect)) as rows:
        first, *others = [fields for _, fields in itertools.islice(rows, 1 + LOOKED_AT)] or [[]]
    if not first:
        raise InputError(f"{file.path} is empty: it has no row", hint="give it a header, or leave it out.")
    if not options.header:
        return replace(dialect, names=tuple(f"column_{number}" for number in range(1, len(first) + 1)))
    if others and all(len(fields) == len(first) + 1 for fields in others) and len(first) > 1:
        log.info(
            "%s: the header names all columns but the first, as R writes it: it is `%s`", file.path, ROW_NAMES
        )
        first = [ROW_NAMES, *first]
        dialect = replace(dialect, unnamed=True)
    if (name := first_duplicate(first)) is not None:
        raise InputError(f"{file.path} has two columns `{name}`", hint="rename one of them in its header.")
    return replace(dialect, names=tuple(first))


def _first_line(file: SourceFile, options: CsvOptions) -> str:
    with readable(file.path), open_text(file) as stream:
        start = stream.read(64)
    return start.decode(options.encoding, "ignore").partition("\n")[0]


def check_options(files: Sequence[SourceFile], options: CsvOptions) -> None:
    """Refuse options that no file can be written in.

    Raises:
        InputError: naming the option.
        OutputError: the rejected rows would go into a file of the input.
    """
    if options.escape and options.escape in (options.quote, options.delimiter):
        raise InputError(
            f"`input.csv.escape` is {options.escape!r}, which the quote or the delimiter is too",
            hint="leave it out: a doubled quote stands for one.",
        )
    if options.bad_rows != "reject":
        return
    if options.reject_file is None:
        raise InputError(
            "`input.csv.bad_rows` is reject, but there is no place for the rejected rows",
            hint="set `input.csv.reject_file`, for example rejected.csv",
        )
    rejects = Place("`input.csv.reject_file`", str(options.reject_file))
    refuse([rejects], [Place("a file of the input", file.path) for file in files])


# --- rows and their lines ------------------------------------------------------------------------------


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read cells of any length."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def records(dialect: Dialect, *, end: str = "", strict: bool = False) -> Generator[tuple[int, list[str]]]:
    """Split a file into rows as Arrow does, slower, but each with the number of its first line.

    Args:
        dialect: the file, and how it is written.
        end: a last line to add to the file's own.
        strict: whether a closing quote must be followed by a delimiter.

    Yields:
        the line, counted from 1 with those inside quotes, and the fields of each row that is not blank; the line that
        tells the delimiter is left out.

    Raises:
        csv.Error: strictly, where a closing quote is not.
    """
    options = dialect.options
    with (
        readable(dialect.file.path),
        _long_fields(),
        dialect.open() as stream,
        io.TextIOWrapper(stream, encoding=dialect.encoding, newline="") as lines,  # type: ignore[type-var]  # a NativeFile is a binary file
    ):
        try:
            first = next(lines, "").removeprefix("\ufeff")
            line = 1 + dialect.declared
            unmarked = itertools.chain([] if dialect.declared else [first], lines, [end])
            reader = csv.reader(
                unmarked,
                delimiter=dialect.delimiter,
                quotechar=options.quote or None,
                quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
                escapechar=options.escape,
                strict=strict,
            )
            before = line - 1
            for fields in reader:
                if fields:
                    yield line, fields
                line = before + reader.line_num + 1
        except UnicodeError:
            check_encoding(dialect)
            raise


def check_encoding(dialect: Dialect) -> None:
    """Refuse bytes that the declared encoding does not have, and say where the first of them is.

    Raises:
        InputError: there are such bytes.
    """
    file, encoding = dialect.file, dialect.options.encoding
    decoder = codecs.getincrementaldecoder(encoding)()
    line, position, chunk = 1, 0, b"start"
    with readable(file.path), open_text(file) as stream:
        while chunk:
            chunk = stream.read(READ_BYTES)
            waiting = len(decoder.getstate()[0])
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeError as error:
                if not isinstance(error, UnicodeDecodeError):  # UTF-16 without the mark that tells its order
                    raise InputError(
                        f"{file.path} is not {encoding}: {error}",
                        hint=f"set `input.csv.encoding` to what the file is written in, {_likely_encoding(file)}.",
                    ) from None
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
