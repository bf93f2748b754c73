"""Configuration files that are no YAML, or another than one thinks."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.bad_input.case import (
    BASE,
    LEGAL,
    Case,
    Named,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def yaml_files() -> Iterator[Named]:
    """Configuration files that are no YAML, or another than one thinks."""
    good = written(BASE)
    for name, content in {
        "empty": b"",
        "a blank": b"   \n",
        "a comment": b"# nothing\n",
        "two documents": good + b"---\n" + good,
        "a document end": good + b"...\nx\n",
        "a directive": b"%YAML 9.9\n---\n" + good,
        "a tag directive": b"%TAG ! tag:x,2000:\n---\n!foo " + good,
        "an unknown tag": b"!foo\n" + good,
        "a bad tag": b"input: !<!> in.csv\n",
        "a bad tag URI": b"input: !<%zz> in.csv\n",
        "a tag without a name": b"input: !!  in.csv\n",
        "binary": b"input: !!binary aW4uY3N2\n" + good.split(b"\n", 1)[1],
        "bad base64": b"input: !!binary '***'\n",
        "a set": b"input: !!set {a, b}\n",
        "an ordered map": b"input: !!omap [a: 1]\n",
        "bad omap": b"input: !!omap x\n",
        "pairs": b"input: !!pairs [a: 1, a: 2]\n",
        "bad pairs": b"input: !!pairs [a]\n",
        "a timestamp": b"input: !!timestamp 2024-99-99\n",
        "a timestamp that is none": b"input: !!timestamp x\n",
        "an int that is none": b"input: !!int x\n",
        "an empty int": b"input: !!int ''\n",
        "a float that is none": b"input: !!float x\n",
        "a bool that is none": b"input: !!bool x\n",
        "a null with text": b"input: !!null x\n",
        "a str of a list": b"input: !!str [a]\n",
        "a seq of a text": b"input: !!seq a\n",
        "a map of a text": b"input: !!map a\n",
        "an int of a list": b"input: !!int [1]\n",
        "a float of a mapping": b"input: !!float {a: 1}\n",
        "a merge": b"<<: {input: in.csv}\n" + good,
        "a merge of a text": b"<<: x\n" + good,
        "a value key": b"=: x\n" + good,
        "an anchor": b"input: &a in.csv\n" + good.split(b"\n", 1)[1],
        "an alias": b"input: *a\n",
        "an alias to itself": b"&a [*a]\n",
        "a list key": b"? [a, b]\n: 1\n" + good,
        "a mapping key": b"? {a: b}\n: 1\n" + good,
        "a set key": b"? !!set {a}\n: 1\n" + good,
        "a number key": b"1: x\n" + good,
        "a null key": b"~: x\n" + good,
        "a bool key": b"true: x\n" + good,
        "a float key": b".nan: x\n.nan: y\n" + good,
        "a binary key": b"!!binary aGk=: x\n" + good,
        "a number key in a step": good.replace(b"- name", b"- 1: 2\n  name"),
        "a key twice": good + b"input: x\n",
        "tabs": good.replace(b"  ", b"\t"),
        "CR": good.replace(b"\n", b"\r"),
        "CR LF": good.replace(b"\n", b"\r\n"),
        "NEL": good.replace(b"\n", "\x85".encode()),
        "a BOM": b"\xef\xbb\xbf" + good,
        "UTF-16": good.decode().encode("utf-16"),
        "UTF-16 without a mark": good.decode().encode("utf-16-le"),
        "UTF-32": good.decode().encode("utf-32"),
        "latin-1": good + b"# caf\xe9\n",
        "a NUL": good + b"\0",
        "DEL": good + b"# \x7f\n",
        "escapes": b'input: "in\\x2ecsv"\n' + good.split(b"\n", 1)[1],
        "a bad escape": b'input: "\\q"\n',
        "a surrogate escape": b'input: "\\ud800.csv"\n' + good.split(b"\n", 1)[1],
        "beyond Unicode": b'input: "\\U99999999"\n',
        "an open quote": b'input: "in.csv\n',
        "an open list": b"input: [in.csv\n",
        "an open mapping": b"input: {path: in.csv\n",
        "deep lists": b"input: " + b"[" * 10_000 + b"]" * 10_000,
        "deep mappings": b"input: " + b"{a: " * 10_000 + b"}" * 10_000,
        "deep blocks": b"".join(b" " * i + b"a:\n" for i in range(2_000)),
        "deep dashes": b"- " * 20_000 + b"x\n",
        "question marks": b"? " * 5_000 + b"x\n",
        "a long key": b"k" * 500_000 + b": x\n",
        "a long text": b"input: " + b"x" * 900_000 + b"\n",
        "many keys": b"".join(b"k%d: x\n" % i for i in range(20_000)),
        "many steps": written({**BASE, "steps": [{"name": f"s{i}", "prompt": "x"} for i in range(1_000)]}),
        "many wrong steps": written(
            {**BASE, "steps": [{"name": f"s{i}", "promt": "x"} for i in range(5_000)]}
        ),
        "many steps of one name": written({**BASE, "steps": [{"name": "s", "prompt": "x"}] * 2_000}),
        "many windows": written({**BASE, "limits": {"windows": [{}] * 3_000}}),
        "a long wrong value": written({**BASE, "dedupe": "x" * 900_000}),
        "a long name": written({**BASE, "steps": [{"name": "s-" * 200_000, "prompt": "x"}]}),
        "a long unknown key": written({**BASE, "x" * 200_000: 1}),
        "a huge number": good + b"tolerate: 1" + b"0" * 4_000 + b"\n",
        "a huge float": good + b"tolerate: 1e" + b"9" * 4_000 + b"\n",
        "many dots": good + b"budget: {credits: ." + b"." * 5_000 + b"}\n",
        "a sexagesimal": good + b"tolerate: 1:30\n",
        "an octal": good + b"tolerate: 0o17\n",
        "a hexadecimal": good + b"tolerate: 0x1f\n",
        "binary digits": good + b"tolerate: 0b1\n",
        "a variable in a variable": good + b"ledger: ${${A}}\n",
        "an open variable": good + b"ledger: ${A\n",
        "a variable that is not set": good + b"ledger: ${A}\n",
        "over a million": b"#" * 1_100_000 + b"\n" + good,
    }.items():
        yield f"YAML: {name}", Case(content, codes=LEGAL)
    rng = random.Random(10)
    for number in range(120):
        changed = bytearray(good)
        for _ in range(rng.choice((1, 2, 8))):
            place = rng.randrange(len(changed))
            match rng.randrange(3):
                case 0:
                    changed[place] = rng.randrange(256)
                case 1:
                    del changed[place]
                case _:
                    changed[place:place] = rng.choice(
                        [
                            b"\n",
                            b": ",
                            b"- ",
                            b"{",
                            b"[",
                            b'"',
                            b"'",
                            b"&",
                            b"*",
                            b"!",
                            b"|",
                            b">",
                            b"%",
                            b"@",
                            b"`",
                            b"\t",
                            b"#",
                            b"?",
                        ]
                    )
        yield f"YAML: damage {number}", Case(bytes(changed), codes=LEGAL)
