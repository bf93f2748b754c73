"""`init --describe`: the endpoint is asked once for a draft of a prompt and of what an answer holds, for a table that is there."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from enrich.base.words import counted
from enrich.config import complete_config
from enrich.config.overrides import ledger_beside
from enrich.errors import RunStopped
from enrich.files.source import open_source
from enrich.runs.options import RunOptions
from enrich.runs.run import run_job
from enrich.verbs.plan import plan_job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from enrich.config import Config
    from enrich.verbs.init import Proposal
    from enrich.verbs.plan_result import JobPlan

ROWS_SHOWN: Final = 3  # of the table, so that the draft fits what stands in it
CELL_MOST: Final = 200  # characters of a value that is shown
FIELDS_MOST: Final = 8
SYSTEM = """\
You draft a job that asks a language model about each row of a table, one row at a time.
Write the instructions as you would give them to a careful person: what to look at, what each field means, what to do when it
cannot be told. Do not write placeholders or row data into them: the chosen columns are shown below the instructions.
Choose the fewest columns that the task needs, and the fewest fields that answer it. Where a field has few possible values, list them."""
_TYPES = ("string", "number", "integer", "boolean")


@dataclass(frozen=True, slots=True)
class Draft:
    """What was drafted, to be written and then edited by a person.

    Attributes:
        task: the instructions.
        schema: of an answer.
        proposal: the table's columns, those first that the draft shows.
    """

    task: str
    schema: dict[str, Any]
    proposal: Proposal


class Drafting:
    """One request for a draft: what it is about, what it costs, and its answer.

    It is a job of one row whose ledger is that of the job to come: asked again, the same draft is there for nothing.

    Args:
        data: the table.
        folder: where the configuration is going to be.
        described: what is wanted of each row, in a person's words.
        proposal: what the table holds.
        model: who is asked; `auto` lets the endpoint choose.
        base_url: of the endpoint; BEATRA_BASE_URL, or Beatra's own, when it is None.

    Raises:
        InputError: the table cannot be read.
    """

    def __init__(
        self,
        data: Path,
        folder: Path,
        described: str,
        proposal: Proposal,
        *,
        model: str = "auto",
        base_url: str | None = None,
    ) -> None:
        self._folder = folder
        self._proposal = proposal
        self._model = model
        self._base_url = base_url
        self._request = _request(data, described, proposal)

    async def plan(self) -> JobPlan:
        """Say what it costs; sends nothing.

        Raises:
            ConfigError: the endpoint cannot be asked.
        """
        with self._job() as config:
            return await plan_job(config, RunOptions(command=None))

    async def ask(self) -> Draft:
        """Ask, or take what was answered to the same before.

        Raises:
            UsageError: it cannot be asked; nothing was sent.
            RunStopped: there is no usable answer.
        """
        with self._job() as config:
            summary = await run_job(config, RunOptions(command=None))
            told = _first(open_source(config.input.model_copy(update={"path": config.output.path})))
        if told["draft_status"] != "ok":
            why = told["draft_error"] or summary.reason
            raise RunStopped(
                f"no draft came: {why}",
                hint="without --describe the columns alone are looked at; what was answered is kept.",
            )
        return self._draft(told)

    def _draft(self, told: dict[str, Any]) -> Draft:
        wanted = told["draft_columns"] or ()
        chosen = [name for name in dict.fromkeys(wanted) if name in self._proposal.shown]
        others = [name for name in self._proposal.shown if name not in chosen]
        why = [f"{name}: shown" for name in chosen] + [f"{name}: left out" for name in others]
        shown = replace(self._proposal, shown=chosen or self._proposal.shown, why=why or self._proposal.why)
        task = " ".join(told["draft_instructions"].split("\r")).replace("{", "(").replace("}", ")")
        return Draft(task.strip(), _schema(told["draft_fields"] or ()), shown)

    @contextmanager
    def _job(self) -> Iterator[Config]:
        with tempfile.TemporaryDirectory(prefix="beatra-enrich-") as scratch:
            folder = Path(scratch)
            (folder / "in.jsonl").write_text(json.dumps({"request": self._request}) + "\n", encoding="utf-8")
            document = {
                "input": "in.jsonl",
                "output": "out.parquet",
                "ledger": ledger_beside(str(self._folder.resolve() / "out" / "draft.parquet")),
                "steps": [
                    {
                        "name": "draft",
                        "system": SYSTEM,
                        "prompt": "{{ request }}",
                        "schema": _answer(self._proposal.shown),
                        "model": self._model,
                        "temperature": 0,
                        "max_tokens": 1_500,
                    }
                ],
            }
            yield complete_config(document, folder=folder, where="init --describe", base_url=self._base_url)


def _first(source: Any) -> dict[str, Any]:
    batch: pa.RecordBatch = next(iter(source.batches(max_rows=1)))
    row: dict[str, Any] = batch.to_pylist()[0]
    return row


def _request(data: Path, described: str, proposal: Proposal) -> str:
    from enrich.config import InputConfig

    source = open_source(InputConfig(path=str(data)))
    names = proposal.shown
    batch = next(iter(source.batches(max_rows=ROWS_SHOWN)), None)
    rows = [] if batch is None else batch.select(names).to_pylist()
    lines = [f"Wanted, of each row of {data.name}: {described.strip()}", "", "Columns:"]
    lines += [f"- {name} ({source.schema.field(name).type})" for name in names]
    lines += ["", f"The first {counted(len(rows), 'row')}:"]
    lines += [
        json.dumps({name: str(value)[:CELL_MOST] for name, value in row.items()}, ensure_ascii=False)
        for row in rows
    ]
    return "\n".join(lines)


def _answer(columns: Sequence[str]) -> dict[str, Any]:
    """Give the schema of a draft."""
    field = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,30}$"},
            "type": {"enum": list(_TYPES)},
            "description": {"type": "string"},
            "values": {"type": "array", "items": {"type": "string"}, "description": "all possible, or none"},
        },
        "required": ["name", "type", "description", "values"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "instructions": {"type": "string", "minLength": 1},
            "columns": {"type": "array", "items": {"enum": list(columns)}, "minItems": 1},
            "fields": {"type": "array", "items": field, "minItems": 1, "maxItems": FIELDS_MOST},
        },
        "required": ["instructions", "columns", "fields"],
        "additionalProperties": False,
    }


def _schema(fields: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make the schema of an answer of what was drafted."""
    properties: dict[str, dict[str, Any]] = {}
    for field in fields:
        values = list(dict.fromkeys(field["values"] or ()))
        kind = {"enum": values} if values and field["type"] == "string" else {"type": field["type"]}
        properties[field["name"]] = {**kind, "description": field["description"]}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
