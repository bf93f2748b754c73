"""`ledger import`: answers that were paid for elsewhere are taken into a job's ledger, and cost nothing here.

They come from the export of another ledger, or from a table of prompts and answers such as other tools keep. Each is checked,
and marked as imported; what it used and cost elsewhere is kept beside it, and stands in no column and no sum.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import orjson

from enrich.base.words import counted
from enrich.config import InputConfig
from enrich.errors import ConfigError, did_you_mean
from enrich.files.source import open_source
from enrich.ledger.opening import open_ledger
from enrich.prompt.cells import spellings
from enrich.prompt.idempotency import GENERATION_STRIDE, ROUND_STRIDE, VOTE_STRIDE, idempotency_key
from enrich.prompt.template import RowError
from enrich.records import Ask, Completion, Reply
from enrich.runs.job import compile_job
from enrich.wire.completion import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.ledger.protocol import Ledger
    from enrich.rows.step import Step

AT_ONCE = 256  # answers made durable together
EXPORTED = ("key", "request", "answer")  # the columns by which an export is known
TABLE = ("prompt", "answer", "model")  # what columns of any other table may stand for
# Ordinals that a request of an export may have been asked under: copies, rounds, generations and votes.
ORDINALS = tuple(
    copy + further
    for further in (
        0,
        *(ROUND_STRIDE * n for n in range(1, 10)),
        *(GENERATION_STRIDE * n for n in range(1, 20)),
        *(VOTE_STRIDE * n for n in range(1, 30)),
    )
    for copy in range(10)
)

Found = tuple[Ask, Reply]


@dataclass(slots=True)
class Imported:
    """What came of an import.

    Attributes:
        read: lines of the file.
        taken: answers that are in the ledger now.
        known: requests that were in the ledger already.
        refused: why lines were left, and how many.
    """

    read: int = 0
    taken: int = 0
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {"read": self.read, "taken": self.taken, "known": self.known, "refused": dict(self.refused)}

    def text(self) -> Iterator[str]:
        """Say it for people."""
        yield f"{counted(self.taken, 'answer')} imported of {counted(self.read, 'line')}, {self.known:,} known before"
        yield from (f"  {count:,} left: {why}" for why, count in self.refused.most_common())


async def import_answers(config: Config, path: str, told: Mapping[str, str], step: str | None) -> Imported:
    """Take answers from a file into the ledger of a job; sends nothing.

    Args:
        config: the job.
        path: an export, or a table with a prompt and an answer in each line.
        told: of a table, the columns for `TABLE`.
        step: of a table: whose prompts these are; needed where several steps ask by rows alone.

    Raises:
        InputError: the file, or the job's input, cannot be read.
        ConfigError: a column or step is not there, or it is not clear which is meant.
    """
    given = await asyncio.to_thread(open_source, InputConfig(path=path))
    source = await asyncio.to_thread(open_source, config.input)
    job = await asyncio.to_thread(compile_job, config, source.schema, key_needed=False)
    done = Imported(read=given.num_rows)
    origin = PurePath(path).name
    if not told and all(name in given.schema.names for name in EXPORTED):
        found = _of_export(given, job.base_url, origin, done.refused)
    else:
        chosen = _step(job.steps, step)
        answers = _table(given, _columns(given.schema.names, told))
        rows = source.batches(columns=job.columns, written=True)
        spelling = chosen.builder.step.prompt_text
        values = (row[spelling] for batch in rows for row in spellings(batch, {spelling}))
        found = _of_table(chosen, values, answers, origin, done.refused)
    ledger = await open_ledger(config.ledger_location())
    try:
        await ledger.open_run({"output": None, "base_url": job.base_url, "imported": origin})
        await _keep(ledger, found, done)
    finally:
        await ledger.close()  # its run has no end: it is none that `status` and `report` tell of
    return done


async def _keep(ledger: Ledger, found: Iterator[Found], done: Imported) -> None:
    """Put answers into the ledger, as far as it knows nothing of their requests."""
    seen: set[bytes] = set()
    while batch := await asyncio.to_thread(_next, found, seen):
        claims = await ledger.claim([ask for ask, _ in batch])
        mine = [one for one, claim in zip(batch, claims, strict=True) if claim.verdict == "mine"]
        await asyncio.gather(*(ledger.answer(ask.key, reply) for ask, reply in mine))
        done.taken += len(mine)
        done.known += len(batch) - len(mine)


def _next(found: Iterator[Found], seen: set[bytes]) -> list[Found]:
    batch: list[Found] = []
    for ask, reply in found:
        if ask.key not in seen:
            seen.add(ask.key)
            batch.append((ask, reply))
        if len(batch) == AT_ONCE:
            break
    return batch


# --- from an export -----------------------------------------------------------------------------------------


def _of_export(given: Source, base_url: str, origin: str, refused: Counter[str]) -> Iterator[Found]:
    """Read the lines of an export whose requests are this endpoint's, and whose answers can be read."""
    names = [
        *EXPORTED,
        *(name for name in ("streamed", "request_id", "parent") if name in given.schema.names),
    ]
    for batch in given.batches(columns=names):
        for line in batch.to_pylist():
            if line["answer"] is None:
                refused["there is no answer"] += 1
                continue
            key, body, parent = _key(line["key"]), _raw(line["request"]), _key(line.get("parent"))
            if key is None or not _is_key_of(key, base_url, body):
                refused["the key is not that of this request at this endpoint"] += 1
                continue
            reply = Reply(
                _raw(line["answer"]), line.get("request_id"), 0.0, streamed=bool(line.get("streamed"))
            )
            result = read(reply)
            if not isinstance(result, Completion):
                refused["the answer cannot be read"] += 1
                continue
            marked = Reply(_marked(reply, result, origin), reply.request_id, 0.0)
            yield Ask(key, body, str(orjson.loads(body).get("model", "")), parent), marked


def _is_key_of(key: bytes, base_url: str, body: bytes) -> bool:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    asks = isinstance(said, dict) and isinstance(said.get("messages"), list)
    return asks and any(idempotency_key(base_url, body, ordinal) == key for ordinal in ORDINALS)


def _key(text: Any) -> bytes | None:
    try:
        return uuid.UUID(text).bytes if isinstance(text, str) else None
    except ValueError:
        return None


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


def _marked(reply: Reply, result: Completion, origin: str) -> bytes:
    """Write an answer down as imported: whole, with what it used and cost set aside."""
    said: dict[str, Any] = {} if reply.streamed else orjson.loads(reply.body)
    if not said.get("choices"):  # a stream, put together
        said = {"choices": [{"index": 0, "finish_reason": result.finish_reason, "message": _message(result)}]}
    said.setdefault("model", result.model)
    usage = said.get("usage") if isinstance(said.get("usage"), dict) else None
    return _imported(said, origin, usage)


def _message(result: Completion) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": result.text}
    if result.reasoning is not None:
        message["reasoning_content"] = result.reasoning
    if result.refusal is not None:
        message["refusal"] = result.refusal
    if result.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in result.calls
        ]
    return message


def _imported(said: dict[str, Any], origin: str, usage: dict[str, Any] | None) -> bytes:
    told = {"from": origin, "at": datetime.now(UTC).isoformat(timespec="seconds"), "usage": usage}
    return orjson.dumps({**{k: v for k, v in said.items() if k != "usage"}, "imported": told})


# --- from a table -----------------------------------------------------------------------------------------


def _columns(names: list[str], told: Mapping[str, str]) -> dict[str, str]:
    for what, column in told.items():
        if what not in TABLE:
            raise ConfigError(
                f"--map {what}={column}: `{what}` is none of {', '.join(TABLE)}",
                hint=did_you_mean(what, TABLE),
            )
        if column not in names:
            raise ConfigError(
                f"--map {what}={column}: there is no column `{column}`", hint=did_you_mean(column, names)
            )
    columns = {**{name: name for name in TABLE if name in names}, **told}
    for what in TABLE[:2]:
        if what not in columns:
            raise ConfigError(
                f"no column of the table is the {what} (it has {', '.join(names)})",
                hint=f"name it: --map {what}=COLUMN.",
            )
    return columns


def _step(steps: Iterable[Step], name: str | None) -> Step:
    """Choose the step whose prompts a table holds: one that needs no earlier answer."""
    able = {step.name: step for step in steps if not step.follows}
    if name is None and len(able) == 1:
        return next(iter(able.values()))
    if name not in able:
        what = (
            "it is not clear whose prompts these are"
            if name is None
            else f"--step {name}: no step of that name asks by rows alone"
        )
        raise ConfigError(what, hint=f"--step names one: {', '.join(able)}.")
    return able[name]


def _table(given: Source, columns: Mapping[str, str]) -> dict[str, tuple[str, str | None]]:
    """Read a table of prompts: what was answered, and by which model; of several answers to one prompt the last."""
    found: dict[str, tuple[str, str | None]] = {}
    for batch in given.batches(columns=list(dict.fromkeys(columns.values()))):
        for line in batch.to_pylist():
            prompt, answer = line[columns["prompt"]], line[columns["answer"]]
            if isinstance(prompt, str) and isinstance(answer, str):
                model = line[columns["model"]] if "model" in columns else None
                found[prompt] = answer, None if model is None else str(model)
    return found


def _of_table(
    step: Step,
    rows: Iterable[dict[str, Any]],
    answers: Mapping[str, tuple[str, str | None]],
    origin: str,
    refused: Counter[str],
) -> Iterator[Found]:
    """Find the requests of the job whose prompt the table has; an answer must be one that the step would take."""
    used: set[str] = set()
    for values in rows:
        made = _ask(step, values)
        if made is None:
            continue
        prompt, ask = made
        if prompt not in answers:
            continue
        answer, model = answers[prompt]
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        reply = Reply(_imported({"model": model or ask.model, "choices": [choice]}, origin, None), None, 0.0)
        result = read(reply)
        fits = isinstance(result, Completion) and step.reader.read(result).status == "ok"
        if prompt not in used and not fits:
            refused["the answer does not fit the step's schema or check"] += 1
        used.add(prompt)
        if fits:
            yield ask, reply
    left = len(answers.keys() - used)
    if left:
        refused["no row of the input has this prompt"] += left


def _ask(step: Step, values: Mapping[str, Any]) -> tuple[str, Ask] | None:
    """Make a row's request, and give the text of its last message of the user; None where it asks nothing."""
    builder = step.builder
    try:
        if not builder.wanted(values):
            return None
        prepared = builder.look(builder.prepare(values))
        texts = [message["content"] for message in prepared.messages if message["role"] == "user"]
        return (texts[-1] if texts else ""), builder.ask(prepared)
    except RowError:
        return None
