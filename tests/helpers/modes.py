"""Every way of running a job, each with what it must have cost in the end: to be torn apart and held to the books."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.helpers.endpoint import BookedEndpoint, Raw, answer_to, echo, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.endpoint import Seen

EXPLODED = 2  # elements of each answer that is a list
SHARE = 3  # of every so many texts, one is refused, unfit or sent to another model
_numbers = itertools.count()


@dataclass(frozen=True)
class Mode:
    """A way of running a job.

    Attributes:
        steps: of the job; the last one's answers are compared.
        config: what else it says.
        charges: how often each text may have been charged in the end: all of them alike, but for ``twice``.
        twice: whether the texts of a share are charged once more than the others.
        repeat: rows that have each text.
        table: the table of a database that the output is.
        days: files that the input has; more than one are a folder, and so is the output.
        before: a command that is let go to its end, and its exit code.
        first: the command that is killed.
        again: the command that goes on.
    """

    steps: tuple[dict[str, Any], ...] = ({"name": "s", "prompt": "{{ t }}"},)
    config: dict[str, Any] = field(default_factory=dict)
    charges: tuple[int, ...] = (1,)
    twice: bool = False
    repeat: int = 1
    days: int = 1
    table: bool = False
    before: tuple[tuple[str, ...], int] | None = None
    first: tuple[str, ...] = ("run",)
    again: tuple[str, ...] = ("run",)


SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
LABELLED = ({"name": "s", "prompt": "{{ t }}", "schema": SCHEMA, "reask": 0},)
QUOTED = {
    "properties": {"label": {"type": "string"}, "quote": {"type": "string"}},
    "required": ["label", "quote"],
}
LISTED = {"properties": {"label": {"type": "array", "items": {"type": "string"}}}, "required": ["label"]}
MODES = {
    "sync": Mode(),
    "stream": Mode(({"name": "s", "prompt": "{{ t }}", "stream": True},)),
    "schema": Mode(LABELLED),
    "chain": Mode(
        ({"name": "one", "prompt": "{{ t }}"}, {"name": "s", "prompt": "{{ t }} {{ one }}"}), charges=(2,)
    ),
    "partitions": Mode(days=3),
    "fresh": Mode(charges=(1, 2), before=(("run",), 0), first=("run", "--fresh")),
    "retry of errors": Mode(before=(("run",), 3), first=("retry",), again=("retry",)),
    "retry of unfit answers": Mode(
        LABELLED, twice=True, before=(("run",), 3), first=("retry",), again=("retry",)
    ),
    "every row asked": Mode(config={"dedupe": False}, charges=(3,), repeat=3),
    "fallback": Mode(
        ({"name": "s", "prompt": "{{ t }}", "model": "first-1", "fallback_models": ["other-1"]},)
    ),
    "votes": Mode(({**LABELLED[0], "votes": 3},), charges=(2,), twice=True),
    "evidence": Mode(
        (
            {
                **LABELLED[0],
                "schema": {"type": "object", **QUOTED},
                "evidence": {"field": "quote", "from": "t"},
                "on_unsupported": "reask",
                "reask": 1,
            },
        ),
        twice=True,
    ),
    "explode": Mode(({**LABELLED[0], "schema": {"type": "object", **LISTED}, "explode": "label"},)),
    "table": Mode(
        table=True,
        config={"output": {"table": "made", "url": "duckdb:///out.db", "mode": "merge", "key": "t"}},
    ),
}


def chosen(text: str) -> bool:
    """Say whether a text is one of the share that something happens to."""
    return int(text.split()[1]) % SHARE == 0


class ModalEndpoint(BookedEndpoint):
    """The endpoint, which streams where it is asked to, and does what a mode is about.

    Attributes:
        refusing: whether texts of the share are refused.
        also: a further script.
    """

    def __init__(self, mode: str) -> None:
        super().__init__(answer=self._labelled if "schema" in MODES[mode].steps[-1] else echo)
        self.script = self._do
        self.also: Callable[[Seen], Raw | None] = lambda _: None
        self.refusing = mode == "retry of errors"
        self._mode = mode
        self._asked: Counter[str] = Counter()

    def _do(self, seen: Seen) -> Raw | None:
        if seen.method == "POST":
            body = seen.body
            text = body["messages"][0]["content"]
            if self.refusing and chosen(text):
                return envelope("invalid_request", 400)
            if body["model"] == "first-1" and chosen(text):
                return envelope("model_unavailable", 503, retryable=True)
        return self.also(seen)

    def _labelled(self, body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"]
        self._asked[text] += 1
        first = chosen(text) and self._asked[text] == 1
        if first and self._mode == "retry of unfit answers":
            return "no label"
        label: Any = "outvoted" if first and self._mode == "votes" else answer_to(text)
        said = {"label": [label] * EXPLODED if self._mode == "explode" else label}
        if self._mode == "evidence":
            said["quote"] = "stands nowhere at all" if first else text
        return json.dumps(said)

    def _complete(self, seen: Seen) -> Raw:
        raw = super()._complete(seen)
        if raw.status != 200 or not seen.body.get("stream"):
            return raw
        whole = json.loads(raw.body)
        text = whole["choices"][0]["message"]["content"]
        told: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": text[:9]}}]},
            {"choices": [{"index": 0, "delta": {"content": text[9:]}, "finish_reason": "stop"}]},
            {"choices": [], "usage": whole["usage"]},
        ]
        events = [
            f"data: {json.dumps({'id': whole['id'], 'model': whole['model'], **one})}\n\n" for one in told
        ]
        body = "".join([*events, "data: [DONE]\n\n"]).encode()
        return Raw(body, headers={**raw.headers, "Content-Type": "text/event-stream"})


@dataclass(frozen=True)
class Task:
    """A job in a folder of its own, over texts that no other job has."""

    mode: Mode
    folder: Path
    texts: list[str]

    def expected(self, times: int, text: str) -> int:
        """Say how often a text is charged where all are charged so many times."""
        return times + (self.mode.twice and chosen(text))

    def broken(self, endpoint: BookedEndpoint) -> list[str]:
        """Hold the books and the output to what the mode says; what breaks the promise, a line each."""
        found = [f"{endpoint.conflicts} keys came with another body"] if endpoint.conflicts else []
        charges: Counter[str] = Counter()
        keys: dict[str, set[str]] = {text: set() for text in self.texts}
        for charge in endpoint.charges:
            text = _text_of(charge.body)
            charges[text] += 1
            keys[text].add(charge.key)
        if not any(
            all(charges[text] == self.expected(times, text) for text in self.texts)
            for times in self.mode.charges
        ):
            found.append(f"charged {dict(charges)}")
        found += [f"{text} under {len(keys[text])} keys" for text in keys if len(keys[text]) != charges[text]]
        return found + self._rows_amiss()

    def _rows_amiss(self) -> list[str]:
        rows = self._rows()
        wanted = self.texts * self.mode.repeat
        if "explode" in self.mode.steps[-1]:
            wanted = [text for text in wanted for _ in range(EXPLODED)]
        if [row["t"] for row in rows] != wanted:
            return [f"{len(rows)} rows came of {len(wanted)}, or in another order"]
        return [
            f"{row} has no answer of its own"
            for row in rows
            if row["s_status"] != "ok" or self._answer(row) != row.get("s_label", row["s"])
        ]

    def _rows(self) -> list[dict[str, Any]]:
        if self.mode.table:
            import duckdb

            with duckdb.connect(str(self.folder / "out.db"), read_only=True) as database:
                made = database.sql("SELECT * FROM made")
                found = [dict(zip(made.columns, row, strict=True)) for row in made.fetchall()]
            return sorted(found, key=lambda row: self.texts.index(row["t"]))
        output = self.folder / "out.parquet"
        files = [output] if self.mode.days == 1 else sorted((self.folder / "out").rglob("*.parquet"))
        return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]

    def _answer(self, row: dict[str, Any]) -> str:
        before = f" {echo({'messages': [{'content': row['t']}]})}" if len(self.mode.steps) > 1 else ""
        return answer_to(f"{row['t']}{before}")


def make_task(name: str, folder: Path, rows: int, ledger: str | None = None) -> Task:
    """Write a job of a mode over so many distinct texts.

    Args:
        name: of the mode.
        folder: of its own.
        rows: distinct ones.
        ledger: its location; None for the usual file.
    """
    mode = MODES[name]
    texts = [f"text {next(_numbers)} of {folder.name}." for _ in range(rows)]
    folder.mkdir(parents=True)
    if mode.days == 1:
        pq.write_table(pa.table({"t": texts * mode.repeat}), folder / "in.parquet")
    for day in range(mode.days if mode.days > 1 else 0):
        file = folder / "in" / f"day={day}" / "part.parquet"
        file.parent.mkdir(parents=True)
        each = rows // mode.days
        pq.write_table(pa.table({"t": texts[day * each : (day + 1) * each]}), file)
    document = {
        "input": "in.parquet" if mode.days == 1 else "in/",
        "output": "out.parquet" if mode.days == 1 else "out/",
        "steps": [*mode.steps],
        "limits": {"concurrency": 4},
        "retry": {"max_wait": 0.02},
        **mode.config,
        **({"ledger": ledger} if ledger else {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return Task(mode, folder, texts)


def _text_of(body: bytes) -> str:
    content: str = json.loads(body)["messages"][0]["content"]
    return content[: content.index(".") + 1]
