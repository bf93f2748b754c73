"""Places that are no file, and files that are none of the kind that is wanted."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from tests.bad_input.case import (
    BASE,
    CSV,
    LEGAL,
    REFUSED,
    RUN,
    STEP,
    Case,
    Content,
    Fifo,
    Folder,
    Link,
    Named,
    Sparse,
    config,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


PATHS: tuple[tuple[str | int, ...], ...] = (
    ("input",),
    ("output",),
    ("ledger",),
    ("report",),
    ("input", "csv", "reject_file"),
    ("endpoint", "api_key_file"),
    ("endpoint", "ca_file"),
    (*STEP, "prompt_file"),
    (*STEP, "messages_file"),
    (*STEP, "examples_file"),
    (*STEP, "schema"),
)
READ = frozenset(
    {"input", "api_key_file", "ca_file", "prompt_file", "messages_file", "examples_file", "schema"}
)


DONE = frozenset({0})
NO_PLACES = {
    "a NUL": "a\0b",
    "a long name": "n" * 256,
    "a long path": "/".join(["n" * 200] * 25),
    "a line end": "a\nb\r",
    "below a file": "in.csv/x.csv",
    "a lone surrogate": "a\ud800.csv",
    "a loop": "loop",
    "a FIFO": "fifo",
    "an endless device": "/dev/zero",
    "random": "/dev/urandom",
    "null": "/dev/null",
    "full": "/dev/full",
    "the terminal": "/dev/tty",
    "stdin": "/dev/stdin",
    "a huge file": "huge",
    "a folder": "folder",
    "the root": "/",
    "here": ".",
    "nothing": "",
    "a home that is not": "~nobody-here/x.csv",
    "a URL": "http://localhost/x.csv",
    "a URL of nothing": "://",
    "a store without a bucket": "s3:///x",
    "a bad file URL": "file://host/x",
    "binary": "binary",
    "a link to a device": "device",
    "proc": "/proc/self/mem",
    "a message": "/proc/kmsg",
}
SPECIAL: dict[str, Content] = {
    "fifo": Fifo(),
    "loop": Link("loop"),
    "device": Link("/dev/zero"),
    "huge": Sparse(6 * 2**30),
    "folder": Folder(),
    "binary": bytes(range(256)) * 8,
}


def paths() -> Iterator[Named]:
    """Places that are no file, in every key that names one."""
    for key in PATHS:
        for name, place in NO_PLACES.items():
            document = config(*key, value=place)
            if key[-1] == "reject_file":
                document["input"]["csv"]["bad_rows"] = "reject"
            if key[-1] in ("messages_file", "prompt_file"):
                del document["steps"][0]["prompt"]
            if key[-1] == "api_key_file":
                document["endpoint"]["base_url"] = "http://localhost:9/v1"
            files = {name: content for name, content in SPECIAL.items() if name == place}
            codes = REFUSED if key[-1] in READ and place != "" else LEGAL
            replaced = frozenset({"binary"}) if key[-1] in ("report", "reject_file") else frozenset[str]()
            if place in ("a\nb\r", "n" * 256) and key[-1] not in READ:
                codes = LEGAL
            yield f"{'.'.join(map(str, key))}: {name}", Case(document, files, codes=codes, replaced=replaced)


def jobs() -> Iterator[Named]:
    """Input files, names and places on the command line that are none."""
    for suffix in (".csv", ".jsonl", ".parquet", ".arrow", ".csv.gz", ".jsonl.zst"):
        contents: dict[str, Content] = {
            "a FIFO": Fifo(),
            "a device": Link("/dev/zero"),
            "a folder": Folder(),
            "empty": b"",
            "one NUL": b"\0",
            "binary": bytes(range(256)) * 300,
            "a BOM": b"\xef\xbb\xbf",
            "line ends": b"\n\r\n\r",
            "a blank": b" ",
            "random": random.Random(1).randbytes(100_000),
        }
        for name, content in contents.items():
            yield (
                f"in{suffix}: {name}",
                Case(config("input", value=f"in2{suffix}"), {f"in2{suffix}": content}, codes=LEGAL),
            )
    for raw in (
        b"caf\xe9.csv",
        b"\xff\xfe.csv",
        "ünïcødé.csv".encode(),
        b"a b.csv",
        b"[x].csv",
        b"-x.csv",
        b"a\nb.csv",
    ):
        yield (
            f"input: {raw!r}",
            Case(BASE, {os.fsdecode(raw): CSV}, args=(*RUN, "--input", os.fsdecode(raw)), codes=DONE),
        )
        yield f"output: {raw!r}", Case(BASE, args=(*RUN, "--output", os.fsdecode(raw)), codes=DONE)
        args = ("run", "--no-progress", "--", os.fsdecode(raw))
        yield f"config: {raw!r}", Case(BASE, {os.fsdecode(raw): written(BASE)}, args=args, codes=DONE)
    for name, place in NO_PLACES.items():
        files = {n: content for n, content in SPECIAL.items() if n == place}
        if "\0" in place:
            continue
        yield f"config at {name}", Case(BASE, files, args=("run", place))
        for command in ("export", "ls", "verify"):
            more = ("-o", "x.parquet") if command == "export" else ()
            yield f"ledger {command} of {name}", Case(BASE, files, args=("ledger", command, place, *more))
        yield f"report -o {name}", Case(BASE, files, args=("report", "config.yaml", "-o", place))
        yield (
            f"collect -o {name}",
            Case(BASE, files, args=("collect", "config.yaml", "-o", place), codes=LEGAL),
        )


def messages_files() -> Iterator[Named]:
    """Prompt, messages and examples files that are none."""
    contents = {
        "empty": b"",
        "not UTF-8": b"\xff\xfe\xfa",
        "a BOM": b"\xef\xbb\xbfx",
        "UTF-16": "x {{ review }}".encode("utf-16"),
        "a NUL": b"a\0b",
        "blank": b" \n",
        "large": b"x" * 3_000_000,
        "9 MB": b"x" * 9_500_000,
        "a broken template": b"{{",
        "deep": b"{{ " + b"(" * 20_000 + b")" * 20_000 + b" }}",
        "CR": b"a\rb {{ review }}\r",
    }
    for name, content in contents.items():
        document = config(*STEP, value={"name": "s", "prompt_file": "p.txt"})
        yield f"prompt_file: {name}", Case(document, {"p.txt": content}, codes=LEGAL)
    lists = {
        "empty": b"",
        "a text": b"x",
        "a mapping": b"{}",
        "an empty list": b"[]",
        "null": b"null",
        "a list of texts": b'["a"]',
        "a list of null": b"[null]",
        "numbers as content": b'[{"role": "user", "content": 1}]',
        "no content": b'[{"role": "user"}]',
        "another role": b'[{"role": "x", "content": "y"}]',
        "many wrong": b"[" + b",".join([b'{"role": "x"}'] * 3_000) + b"]",
        "deep": b"[" * 50_000 + b"]" * 50_000,
        "broken": b'[{"role":',
        "not UTF-8": b'[{"role": "user", "content": "\xff"}]',
        "a surrogate": b'[{"role": "user", "content": "\\ud800"}]',
        "digits": b"[" + b"9" * 10_000 + b"]",
        "keys of numbers": b"[{1: 2}]",
        "only a system": b'[{"role": "system", "content": "x"}]',
        "an assistant last": b'[{"role": "assistant", "content": "x"}]',
        "blank content": b'[{"role": "user", "content": ""}]',
    }
    for suffix in ("yaml", "json", "jsonl", "txt"):
        for name, content in lists.items():
            lines = content[1:-1] if suffix == "jsonl" and content[:2] == b"[{" else content
            document = config(*STEP, value={"name": "s", "messages_file": f"m.{suffix}"})
            yield f"messages_file: {suffix}: {name}", Case(document, {f"m.{suffix}": lines}, codes=LEGAL)
            document = config(*STEP, value={"name": "s", "prompt": "x", "examples_file": f"m.{suffix}"})
            yield f"examples_file: {suffix}: {name}", Case(document, {f"m.{suffix}": lines}, codes=LEGAL)
    for name, messages in {
        "texts": ["a"],
        "null": [None],
        "numbers": [{"role": "user", "content": 5}],
        "lists": [{"role": "user", "content": [{"type": "text"}]}],
        "a mapping": {"role": "user"},
    }.items():
        yield (
            f"messages: {name}",
            Case(config(*STEP, value={"name": "s", "messages": messages}), codes=REFUSED),
        )
    for name in (
        "s" * 5_000,
        "row",
        "class",
        "_",
        "__class__",
        "loop",
        "range",
        "none",
        "self",
        "S",
        "é",
        "review",
        "s_status",
        "input",
        "1s",
        "s\n",
        "true",
        "if",
    ):
        yield f"step named {name!r:.20}", Case(config(*STEP, "name", value=name), codes=LEGAL)
    for model in ("", " ", "\n", "a\r\nb", "x" * 100_000, "\0", "\ud800", "é", "{{ review }}", "${X}"):
        yield f"model: {model!r:.20}", Case(config(*STEP, "model", value=model), codes=LEGAL)
        yield (
            f"fallback_models: {model!r:.20}",
            Case(config(*STEP, "fallback_models", value=[model]), codes=LEGAL),
        )
