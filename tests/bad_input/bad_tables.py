"""JSON Lines that are none, and binary files that are cut or damaged."""

from __future__ import annotations

import gzip
import io
import random
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from tests.bad_input.case import (
    CSV,
    LEGAL,
    Case,
    Named,
    config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def jsonl_files() -> Iterator[Named]:
    """JSON Lines that are no lines of objects, or nearly."""
    contents: dict[str, bytes] = {
        "a number": b"1\n",
        "numbers": b"1\n2\n3\n",
        "a text": b'"a"\n',
        "true": b"true\n",
        "a list": b"[1]\n",
        "one array": b'[{"review": "a"}, {"review": "b"}]',
        "one array over lines": b'[\n  {"review": "a"},\n  {"review": "b"}\n]\n',
        "one object over lines": b'{\n  "review": "a"\n}\n',
        "DuckDB's array": b'[\n\t{"review":"a"},\n\t{"review":"b"}\n]\n',
        "empty objects": b"{}\n{}\n",
        "an object then a number": b'{"review": "a"}\n1\n',
        "an object then a list": b'{"review": "a"}\n[{"review": "a"}]\n',
        "an object then null": b'{"review": "a"}\nnull\n',
        "two on a line": b'{"review": "a"}{"review": "b"}\n',
        "two on a line with a comma": b'{"review": "a"},{"review": "b"}\n',
        "a trailing comma": b'{"review": "a",}\n',
        "single quotes": b"{'review': 'a'}\n",
        "no quotes": b"{review: a}\n",
        "a comment": b'{"review": "a"} // x\n',
        "NaN": b'{"review": "a", "n": NaN}\n',
        "Infinity": b'{"review": "a", "n": -Infinity}\n',
        "a key twice": b'{"review": "a", "review": "b"}\n',
        "an empty key": b'{"review": "a", "": 1}\n',
        "a NUL key": b'{"review": "a", "\\u0000": 1}\n',
        "a lone surrogate": b'{"review": "\\ud800"}\n',
        "half a surrogate pair": b'{"review": "\\udc00\\ud800"}\n',
        "a lone surrogate in a key": b'{"review": "a", "\\ud800": 1}\n',
        "an escaped NUL": b'{"review": "a\\u0000b"}\n',
        "a raw NUL": b'{"review": "a\0b"}\n',
        "NUL behind": b'{"review": "a"}\n\0',
        "raw control characters": b'{"review": "a\x01b"}\n',
        "a bad escape": b'{"review": "\\x41"}\n',
        "half an escape": b'{"review": "\\u12"}\n',
        "bad UTF-8": b'{"review": "\xff"}\n',
        "UTF-16": '{"review": "a"}\n'.encode("utf-16"),
        "UTF-32": '{"review": "a"}\n'.encode("utf-32"),
        "a BOM": b'\xef\xbb\xbf{"review": "a"}\n',
        "a BOM inside": b'{"review": "a"}\n\xef\xbb\xbf{"review": "b"}\n',
        "cut": b'{"review": "a"}\n{"rev',
        "CR": b'{"review": "a"}\r{"review": "b"}\r',
        "CR LF": b'{"review": "a"}\r\n{"review": "b"}\r\n',
        "blank lines": b'\n\n{"review": "a"}\n\n',
        "blanks": b'  {"review": "a"}  \n   \n',
        "1e400": b'{"review": "a", "n": 1e400}\n',
        "a long integer": b'{"review": "a", "n": ' + b"9" * 5_000 + b"}\n",
        "2**63": b'{"review": "a", "n": 9223372036854775808}\n',
        "a leading zero": b'{"review": "a", "n": 01}\n',
        "+1": b'{"review": "a", "n": +1}\n',
        "minus zero": b'{"review": "a", "n": -0}\n',
        "a deep list": b'{"review": "a", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        "60 deep": b'{"review": "a", "n": ' + b"[" * 60 + b"]" * 60 + b"}\n",
        "a deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"\n",
        "open brackets": b"[" * 200_000 + b"\n",
        "open braces": b"{" * 200_000 + b"\n",
        "types that differ": b'{"review": "a", "n": 1}\n{"review": "b", "n": "x"}\n',
        "types that differ deep": b'{"review": "a", "n": {"x": [1]}}\n{"review": "b", "n": {"x": [{}]}}\n',
        "an object then a text": b'{"review": "a", "n": {}}\n{"review": "b", "n": "x"}\n',
        "a list then an object": b'{"review": "a", "n": []}\n{"review": "b", "n": {}}\n',
        "mixed list": b'{"review": "a", "n": [1, "a", null, {}]}\n',
        "all null": b'{"review": null}\n',
        "dates": b'{"review": "a", "d": "9999-12-31T23:59:59Z"}\n{"review": "a", "d": "x"}\n',
        "a long line": b'{"review": "' + b"x" * 9_000_000 + b'"}\n',
        "a long key": b'{"review": "a", "' + b"k" * 2_000_000 + b'": 1}\n',
        "3,000 keys": b'{"review": "a", ' + b", ".join(b'"k%d": 1' % i for i in range(3_000)) + b"}\n",
        "3,000 rows of different keys": b"".join(b'{"review": "a", "k%d": 1}\n' % i for i in range(3_000)),
        "3,000 rows of objects of different keys": b"".join(
            b'{"review": "a", "o": {"k%d": 1}}\n' % i for i in range(3_000)
        ),
        "CSV": CSV,
        "HTML": b"<html>\n",
        "a raw number": b"1" * 100_000 + b"\n",
        "strings": b'"' * 10_001 + b"\n",
    }
    for name, content in contents.items():
        for out in ("out.parquet", "out.csv"):
            yield (
                f"JSON Lines: {name} to {out}",
                Case(config("output", value=out, input="in.jsonl"), {"in.jsonl": content}, codes=LEGAL),
            )
    rng = random.Random(8)
    alphabet = [
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'"',
        b"\n",
        b"\\",
        b"1",
        b"false",
        b'"review"',
        b"-",
        b".",
        b"e",
        b"true",
        b"\xff",
        b" ",
        b"\0",
    ]
    good = b'{"review": "a", "n": {"x": [1, 2.5, null]}}\n'
    for number in range(60):
        body = b"".join(rng.choices(alphabet, k=rng.randrange(1, 60)))
        yield (
            f"JSON Lines: noise {number}",
            Case(config("input", value="in.jsonl"), {"in.jsonl": body}, codes=LEGAL),
        )
        damaged = bytearray(good * 3)
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        yield (
            f"JSON Lines: damage {number}",
            Case(config("input", value="in.jsonl"), {"in.jsonl": bytes(damaged)}, codes=LEGAL),
        )


def table_bytes(kind: str, **options: Any) -> bytes:
    """Give a small table as a file's bytes."""
    table = pa.table(
        {
            "review": ["good", "bad", None] * 50,
            "n": list(range(150)),
            "x": [float(i) for i in range(150)],
            "l": [[i, None] for i in range(150)],
            "d": pa.array(["a", "b", "c"] * 50).dictionary_encode(),
        }
    )
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink, **options)
    elif kind == "arrow":
        with ipc.new_file(sink, table.schema, **options) as writer:
            writer.write_table(table)
    else:
        with ipc.new_stream(sink, table.schema, **options) as writer:
            writer.write_table(table)
    return sink.getvalue()


def damaged_files() -> Iterator[Named]:
    """Binary files that are cut, or whose bytes were changed."""
    rng = random.Random(9)
    whole = {
        "in2.parquet": table_bytes("parquet", compression="none"),
        "in3.parquet": table_bytes("parquet"),
        "in2.arrow": table_bytes("arrow"),
        "in3.arrow": table_bytes("stream"),
        "in2.csv.gz": gzip.compress(CSV * 50),
    }
    for name, content in whole.items():
        for number in range(10):
            cut = content[: rng.randrange(1, len(content))]
            document = config(
                "input",
                value=name,
                steps=[{"name": "s", "prompt": "x {{ n }}" if "csv" not in name else "x {{ id }}"}],
            )
            yield f"{name}: cut {number}", Case(document, {name: cut}, codes=LEGAL | {4})
        for number in range(30):
            changed = bytearray(content)
            for _ in range(rng.choice((1, 4, 32))):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            yield f"{name}: damage {number}", Case(document, {name: bytes(changed)}, codes=LEGAL | {4})
