"""Good jobs, each with something in it changed at random: a file's bytes, or a value of the configuration."""

from __future__ import annotations

import copy
import io
import json
import random
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from tests.bad_input.case import LEGAL, RUN, Case, written

if TYPE_CHECKING:
    from collections.abc import Callable

STOPPED = 4  # a limit or budget that came out tiny may stop a run
ROWS: dict[str, list[Any]] = {
    "id": [1, 2, 3],
    "review": ["good", "bad, so", 'say "hi"'],
    "stars": [5, 1, None],
}
# Nothing in it is a path from the root, a URL, or asks for a variable: no change can make it leave its folder.
CONFIG: dict[str, Any] = {
    "input": {
        "path": "in.csv",
        "format": "csv",
        "columns": ["id", "review", "stars"],
        "csv": {"delimiter": ","},
    },
    "output": {"path": "out.parquet", "compression": "zstd"},
    "ledger": "ledger.db",
    "report": "report.html",
    "steps": [
        {
            "name": "s",
            "system": "You classify.",
            "prompt": "Classify: {{ review | trim }} {% if stars %}({{ stars }}){% endif %}",
            "model": "auto",
            "temperature": 0.5,
            "max_tokens": 64,
            "params": {"seed": 7, "stop": ["x"]},
            "when": "{{ id > 0 }}",
            "on_null": "skip",
            "schema": {
                "type": "object",
                "properties": {"label": {"enum": ["pos", "neg"]}, "score": {"type": "number", "minimum": 0}},
                "required": ["label"],
            },
            "reask": 1,
        },
        {"name": "t", "prompt_file": "prompt.txt", "fallback_models": ["fast"], "stream": False},
    ],
    "limits": {
        "concurrency": 8,
        "requests_per_minute": 60_000,
        "windows": [{"requests": 1000, "seconds": 1}],
    },
    "retry": {"attempts": 2, "max_wait": 1},
    "budget": {"credits": 50, "requests": 1000},
    "dedupe": True,
    "tolerate": "50%",
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**63, 2**70, 1e308, -1e-320, float("inf"), float("nan"), 0.5),
    *(
        "",
        " ",
        "\n",
        "\0",
        "x" * 5000,
        "é\u2028\U0001f600",
        "1",
        "0",
        "null",
        "1%",
        "{{ x }}",
        "{{",
        "}}",
        "{% if %}",
    ),
    *(
        "{{ review",
        "{{ row }}",
        "{{ id / 0 }}",
        "auto",
        "s",
        "id",
        "in.csv",
        "out.csv",
        "out.jsonl",
        "out.arrow",
        ".",
    ),
    *(
        [],
        [[]],
        [None],
        ["a"] * 50,
        [{}],
        {},
        {"": 1},
        {"a": {"b": {"c": [1]}}},
        {1: 2},
        ["id", "id"],
        "utf-16",
        "int64",
    ),
)
SNIPPETS = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b"\n\n",
        b"\t",
        b'"',
        b"'",
        b",",
        b";",
        b":",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(
        b"{{",
        b"}}",
        b"{%",
        b"%}",
        b"{#",
        b"- ",
        b"&a ",
        b"*a",
        b"!!int ",
        b"? ",
        b"| ",
        b"> ",
        b"%",
        b"\\",
        b"1e999",
        b"NaN",
    ),
    *(b"9" * 400, b"a" * 70_000, b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"<<: ", b"null", b"true", b"-", b"#"),
)


def mutated(seed: int) -> Case:
    """Give the case of a seed."""
    rng = random.Random(seed)
    document: Any = copy.deepcopy(CONFIG)
    name, content = _table(rng)
    document["input"]["path"] = name
    document["input"].pop("format")
    document["output"]["path"] = rng.choice(["out.parquet", "out.csv", "out.jsonl", "out.arrow"])
    if rng.random() < 0.5:
        document["steps"] = document["steps"][:1] if rng.random() < 0.5 else document["steps"][1:]
    files: dict[str, bytes] = {
        name: content,
        "prompt.txt": b"Say {{ s_label | default('x') if s_label is defined else review }}",
    }
    change = rng.choice([_value, _value, _text, _table_bytes, _prompt])
    config = change(rng, document, files, name)
    return Case(config, dict(files), RUN, codes=LEGAL | {STOPPED}, replaced=frozenset({name}))


# --- what is changed ------------------------------------------------------------------------------------


def _value(rng: random.Random, document: Any, files: dict[str, bytes], name: str) -> Any:
    """Change some values of the configuration."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        holder, key = rng.choice(list(_places(document)))
        match rng.choice(["replace", "replace", "replace", "delete", "rename", "wrap"]):
            case "delete":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[f"{key}x" if rng.random() < 0.5 else str(key)[:-1]] = holder.pop(key)
            case "wrap":
                holder[key] = rng.choice([[holder[key]], {"path": holder[key]}, str(holder[key])])
            case _:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
        if not document:
            break
    return document


def _text(rng: random.Random, document: Any, files: dict[str, bytes], name: str) -> bytes:
    """Change the bytes of the configuration."""
    return _bytes(rng, written(document))


def _table_bytes(rng: random.Random, document: Any, files: dict[str, bytes], name: str) -> Any:
    """Change the bytes of the input."""
    files[name] = _bytes(rng, files[name])
    return document


def _prompt(rng: random.Random, document: Any, files: dict[str, bytes], name: str) -> Any:
    """Change the bytes of a prompt or a schema, which then lie in files."""
    document["steps"] = [{"name": "t", "prompt_file": "prompt.txt", "schema": "answer.json"}]
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["integer", "null"]}, "b": {"$ref": "#/$defs/b"}},
    }
    files["answer.json"] = json.dumps({**schema, "$defs": {"b": {"enum": ["x"]}}}).encode()
    files["prompt.txt"] = b"{% for k, v in row.items() %}{{ k }}={{ v }};{% endfor %}{{ review | upper }}"
    changed = rng.choice(["answer.json", "prompt.txt"])
    files[changed] = _bytes(rng, files[changed])
    return document


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Give every place in a configuration: what holds it, and the key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def _bytes(rng: random.Random, data: bytes) -> bytes:
    """Change some bytes: put others in, take some out, double some, or cut the rest off."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice([0, 0, 1, 2, 8, 40]))
        match rng.choice(["put", "put", "put", "double", "flip", "cut"]):
            case "put":
                data = data[:start] + rng.choice(SNIPPETS) + data[end:]
            case "double":
                data = data[:end] + data[start:end] * rng.choice([1, 3, 50]) + data[end:]
            case "flip" if start < len(data):
                data = data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
            case "cut" if rng.random() < 0.5:
                data = data[:start]
    return data.replace(b"/", b"").replace(b"~", b"").replace(b"$", b"") if b"prompt" in data else data


def _table(rng: random.Random) -> tuple[str, bytes]:
    """Give a table in one of the formats."""
    table = pa.table(ROWS)
    makers: dict[str, Callable[[], bytes]] = {
        "in.csv": lambda: b'id,review,stars\n1,good,5\n2,"bad, so",1\n3,"say ""hi""",\n',
        "in.jsonl": lambda: b"".join(json.dumps(row).encode() + b"\n" for row in table.to_pylist()),
        "in.parquet": lambda: _stored(lambda file: pq.write_table(table, file)),
        "in.arrow": lambda: _stored(lambda file: _write_arrow(table, file)),
    }
    name = rng.choice(list(makers))
    return name, makers[name]()


def _stored(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _write_arrow(table: pa.Table, file: io.BytesIO) -> None:
    with ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
