"""CSV files that break in the middle, or nearly, and options that no such file can have."""

from __future__ import annotations

import gzip
import random
from typing import TYPE_CHECKING

from tests.bad_input.case import (
    BASE,
    CSV,
    LEGAL,
    REFUSED,
    Case,
    Named,
    config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


CODECS = (
    "base64",
    "hex",
    "rot13",
    "rot_13",
    "zip",
    "zlib",
    "bz2",
    "uu",
    "quopri",
    "idna",
    "punycode",
    "undefined",
    "unicode_escape",
    "raw_unicode_escape",
    "utf-7",
    "utf_8_sig",
    "utf-16",
    "utf-32",
    "utf-16-le",
    "cp037",
    "cp500",
    "mbcs",
    "oem",
    "charmap",
    "palmos",
    "hz",
    "iso2022_jp",
    "shift_jis",
    "gb18030",
    "big5",
    "johab",
    "",
    " ",
    "utf8\0",
    "é",
    "x" * 10_000,
    "../x",
    "utf-8 ",
    "UTF8",
    "latin1",
    "ascii",
    "encodings",
    "aliases",
    "string_escape",
)


def csv_options() -> Iterator[Named]:
    """Options that no CSV file can have."""
    for codec in CODECS:
        yield f"encoding: {codec!r:.20}", Case(config("input", "csv", "encoding", value=codec), codes=LEGAL)
    for key in ("delimiter", "quote"):
        for sign in (
            "",
            ",",
            '"',
            "'",
            "\n",
            "\r",
            "\0",
            " ",
            "\t",
            "a",
            "1",
            "\\",
            "é",
            "€",
            "\ufeff",
            ".",
            "-",
            ";",
            "||",
            "\x1f",
            "\x7f",
            "\ud800",
        ):
            yield f"{key}: {sign!r}", Case(config("input", "csv", key, value=sign), codes=LEGAL)
    for delimiter, quote in (('"', '"'), ("'", "'"), ("a", "a"), (";", ";")):
        document = config("input", "csv", value={"delimiter": delimiter, "quote": quote})
        yield f"delimiter and quote: {delimiter}", Case(document, codes=REFUSED)
    for name, value in {
        "null_values of many": [str(i) for i in range(5_000)],
        "null_values with a line end": ["\n"],
        "null_values with a quote": ['"'],
        "null_values of all": ["", "good", "bad"],
    }.items():
        yield f"{name}", Case(config("input", "csv", "null_values", value=value), codes=LEGAL)
    for kind in (
        "int8",
        "uint64",
        "float16",
        "decimal128(5,2)",
        "date64",
        "time32[s]",
        "timestamp[ns]",
        "binary",
        "list",
        "null",
        "bool",
        "duration[s]",
        "large_string",
        "dictionary",
        "",
        "int",
        "é",
        "\0",
        "string_view",
        "month_day_nano_interval",
        "halffloat",
        "fixed_size_binary[3]",
    ):
        for column in ("review", "stars", "id"):
            yield (
                f"types: {column} as {kind!r}",
                Case(config("input", "csv", "types", value={column: kind}), codes=LEGAL),
            )
    for name, columns in {
        "twice": ["review", "review"],
        "none": [],
        "empty name": [""],
        "NUL": ["\0"],
        "many": ["review"] * 1_000,
    }.items():
        yield (
            f"columns: {name}",
            Case(config("input", value={"path": "in.csv", "columns": columns}), codes=LEGAL),
        )
    for partition in ("=", "a", "a=", "a=b=c", "/=x", "\0=1", "review=x", "a/b=c"):
        yield (
            f"partitions: {partition!r}",
            Case(config("input", value={"path": "in.csv", "partitions": [partition]}), codes=REFUSED),
        )


def csv_files() -> Iterator[Named]:
    """CSV files that break in the middle, or nearly."""
    contents: dict[str, bytes] = {
        "only a header": b"id,review\n",
        "a header without a line end": b"id,review",
        "no header cell": b"\n1,a\n",
        "blank lines first": b"\n\n\nid,review\n1,a\n",
        "an empty column name": b"id,review,\n1,a,b\n",
        "blank column names": b" , review \n1,a\n",
        "a NUL in a cell": b"id,review\n1,a\0b\n",
        "a NUL in a header": b"id,rev\0iew,review\n1,a,b\n",
        "NULs": b"id,review\n\0\0,\0\n",
        "an open quote": b'id,review\n1,"a\n',
        "a quote in a cell": b'id,review\n1,a"b\n',
        "text behind a quote": b'id,review\n1,"a"b\n2,"c"\n',
        "quotes doubled": b'id,review\n1,"a""b"\n',
        "quotes escaped": b'id,review\n1,"a\\"b"\n',
        "CR only": b"id,review\r1,a\r2,b\r",
        "CR LF mixed": b"id,review\r\n1,a\n2,b\r",
        "too few cells": b"id,review\n1\n",
        "too many cells": b"id,review\n1,a,b,c\n",
        "many bad rows": b"id,review\n" + b"1\n" * 10_000,
        "a long line": b"id,review\n1," + b"x" * 3_000_000 + b"\n",
        "a long header": b"id,review," + b"n" * 100_000 + b"\n1,a,b\n",
        "many columns": b",".join(b"c%d" % i for i in range(5_000)) + b",review\n" + b"," * 5_000 + b"a\n",
        "one column many times": b"review," * 2_000 + b"review\n",
        "latin-1": "id,review\n1,café\n".encode("latin-1"),
        "UTF-16": "id,review\n1,a\n".encode("utf-16"),
        "UTF-16 without a mark": "id,review\n1,a\n".encode("utf-16-le"),
        "UTF-32": "id,review\n1,a\n".encode("utf-32"),
        "a surrogate": b"id,review\n1,\xed\xa0\x80\n",
        "an overlong form": b"id,review\n1,\xc0\xaf\n",
        "half a character": b"id,review\n1,\xe2\x82",
        "beyond Unicode": b"id,review\n1,\xf5\x80\x80\x80\n",
        "bad UTF-8 in a header": b"id,review,\xff\n1,a,b\n",
        "a BOM twice": b"\xef\xbb\xbf\xef\xbb\xbfid,review\n1,a\n",
        "gzip inside": gzip.compress(CSV),
        "HTML": b"<html><body>404</body></html>\n",
        "JSON": b'{"review": "a"}\n',
        "sep": b"sep=;\nid;review\n1;a\n",
        "a trailing delimiter": b"id,review,\n1,a,\n",
        "R's row names": b'"review","stars"\n"1","a",1\n',
        "numbers as names": b"1,2\nreview,a\n",
        "formulas": b"id,review\n1,=cmd\n",
        "Ctrl-Z": b"id,review\n1,a\n\x1a",
        "a column named row": b"row,review\n1,a\n",
        "a column named s": b"s,review\n1,a\n",
        "dates": b"day,review\n9999-12-31,a\n0001-01-01,b\n-0001-01-01,c\n",
        "times": b"day,review\n24:00:00,a\n",
        "numbers": b"n,review\n1e400,a\n-1e400,b\nnan,c\ninf,d\n",
        "long numbers": b"n,review\n" + b"9" * 5_000 + b",a\n",
        "booleans": b"n,review\ntrue,a\nTRUE,b\n1,c\n",
    }
    for name, content in contents.items():
        for out in ("out.parquet", "out.csv", "out.jsonl"):
            yield f"CSV: {name} to {out}", Case(config("output", value=out), {"in.csv": content}, codes=LEGAL)
    rng = random.Random(7)
    alphabet = [b",", b'"', b"\n", b"\r", b"a", b"1", b"\0", b"\xff", b"\\", b"'", b";", b" ", b"\xc3\xa9"]
    for number in range(60):
        body = b"id,review\n" + b"".join(rng.choices(alphabet, k=rng.randrange(1, 200)))
        yield f"CSV: noise {number}", Case(BASE, {"in.csv": body}, codes=LEGAL)
