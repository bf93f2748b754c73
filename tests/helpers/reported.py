"""A run with everything in it that a report shows: retries, refusals, broken answers, hostile rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv

import enrich
from enrich.base.loops import run_sync
from enrich.report.page import report_job
from enrich.sandbox import SandboxOptions, ThreadedSandbox, parse_fault

if TYPE_CHECKING:
    from enrich.config import Config
    from enrich.records import Summary

HOSTILE = """</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">{{ 7 * 7 }}"""
FAULTS = (
    "internal_error=0.15:1",
    "internal_error_final=0.06",
    "broken_schema=0.05",
    "refusal=0.06",
    "truncated=0.05",
)
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg", "neutral"]}, "score": {"type": "number"}},
    "required": ["label", "score"],
}


def options(faults: tuple[str, ...] = FAULTS, **more: Any) -> SandboxOptions:
    """Give the options of an emulator with these faults."""
    return SandboxOptions(faults=tuple(parse_fault(fault) for fault in faults), latency=0.004, **more)


def reported(
    folder: Path, sandbox: SandboxOptions | None = None, *, rows: int = 300, **config: Any
) -> tuple[Config, Summary]:
    """Run a job of one step over a column `review` in a folder; gives its configuration and how it ended."""
    reviews = [HOSTILE if number == 0 else f"number {number} is a secret-{number}" for number in range(rows)]
    pyarrow.csv.write_csv(pa.table({"review": reviews}), folder / "in.csv")
    key = folder / "key"
    key.write_text("sk-test-0123456789")
    key.chmod(0o600)
    with ThreadedSandbox(sandbox or options()) as server:
        document = {
            "input": str(folder / "in.csv"),
            "output": str(folder / "out.parquet"),
            "endpoint": {"base_url": server.base_url, "api_key_file": str(key)},
            "retry": {"max_wait": 0.05},
            "steps": [{"name": "s", "prompt": "Classify: {{ review }}", "schema": SCHEMA, "reask": 0}],
            **config,
        }
        loaded = enrich.Config.model_validate(document)
        return loaded, enrich.run(loaded)


def page_of(config: Config, *, content: bool = True) -> str:
    """Write the report on a job's last run, and give its HTML."""
    return Path(run_sync(lambda: report_job(config, content=content))).read_text(encoding="utf-8")
