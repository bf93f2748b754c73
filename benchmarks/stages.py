"""Where a row's time goes: each stage of a run by itself, on this machine, without a network.

    python benchmarks/stages.py [--rows 50000]

CPU is the process's own and the kernel's on its behalf, in µs a row. The stages are the run's own functions, called on
the same rows one after the other; what asyncio, aiohttp and the server take is what `work.py` shows above their sum.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from common import KEY, machine, table, write_job
from resume import ANSWER, GROUP, URL

if TYPE_CHECKING:
    from enrich.ledger.sqlite import SqliteLedger

SLICE = 256  # rows at once, as in a run


class Stages:
    """CPU time per stage, in the order in which the stages first ended."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._since = time.process_time()

    def begin(self) -> None:
        """Forget what went before."""
        self._since = time.process_time()

    def end(self, stage: str) -> None:
        """Count the time since the last word to a stage."""
        now = time.process_time()
        self.spent[stage] = self.spent.get(stage, 0.0) + now - self._since
        self._since = now


class Walk:
    """Takes all rows of a job through every stage of a run."""

    def __init__(self, config_path: Path) -> None:
        from enrich.config import load_config
        from enrich.files.source import open_source
        from enrich.rows.statuses import Marks
        from enrich.runs.job import compile_job

        self.stages = Stages()
        self._config = load_config(config_path)
        source = open_source(self._config.input)
        self._job = compile_job(self._config, source.schema)
        self._step = self._job.steps[0]
        self.stages.begin()
        self._batches = list(source.batches())
        self.stages.end("read the Parquet file")
        self._rows = [row for batch in self._batches for row in batch.to_pylist()]
        self.stages.end("rows to Python values")
        self._marks = Marks(len(self._rows), 1, config_path.parent)

    async def go(self) -> None:
        """Ask, find again, and write the output."""
        from enrich.ledger.sqlite import open_ledger

        ledger = await open_ledger(self._config.ledger_location())
        run = await ledger.open_run({})
        for start in range(0, len(self._rows), GROUP):
            keys = await self._ask(ledger, start)
            for part in range(0, len(keys), SLICE):
                await self._find(ledger, run, start + part, keys[part : part + SLICE])
        self.stages.begin()
        self._marks.find_copies()
        self.stages.end("find copies")
        self._write()
        await ledger.close_run({})
        await ledger.close()
        self._marks.close()

    async def _ask(self, ledger: SqliteLedger, start: int) -> list[bytes]:
        from enrich.records import Reply

        self.stages.begin()
        prepared = [self._step.builder.prepare(row) for row in self._rows[start : start + GROUP]]
        self.stages.end("render the template")
        asks = [self._step.builder.ask(row) for row in prepared]
        self.stages.end("body and idempotency key")
        await ledger.claim(asks)
        self.stages.end("ledger: intents, on disk")
        replies = [Reply(ANSWER % n, f"req-{n:010d}", 1.25) for n in range(start, start + len(asks))]
        self.stages.begin()
        await asyncio.gather(*(ledger.answer(a.key, reply) for a, reply in zip(asks, replies, strict=True)))
        self.stages.end("ledger: answers, on disk")
        return [ask.key for ask in asks]

    async def _find(self, ledger: SqliteLedger, run: int, start: int, keys: list[bytes]) -> None:
        from enrich.engine.engine import settled_record
        from enrich.rows.judged import judge
        from enrich.wire import completion

        self.stages.begin()
        known = await ledger.lookup(keys)
        self.stages.end("(a finished row) find it in the ledger")
        settled = [settled_record(known[key], completion.read, run=run) for key in keys]
        self.stages.end("read the answer")
        outcomes = [judge(self._step.reader, one) for one in settled]
        self.stages.end("judge it")
        for row, outcome in enumerate(outcomes, start):
            self._marks.set(row, 0, outcome)
        self.stages.end("note it and keep what it has to show")

    def _write(self) -> None:
        import pyarrow as pa

        from enrich.answer.columns import step_columns
        from enrich.files.sink import open_sink

        row = 0
        with open_sink(self._config.output, self._job.output_schema) as sink:
            for batch in self._batches:
                self.stages.begin()
                kept = [outcome for outcome in self._marks.read(row, batch.num_rows, 0).outcomes if outcome]
                self.stages.end("take up what was kept")
                columns = [*batch.columns, *step_columns(self._step.columns, None, kept)]
                made = pa.RecordBatch.from_arrays(columns, schema=self._job.output_schema)
                self.stages.end("columns")
                sink.write(made)
                self.stages.end("write Parquet")
                row += batch.num_rows
            self.stages.begin()
            sink.commit({})
            self.stages.end("write Parquet")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    rows = parser.parse_args().rows

    from enrich.base.collector import collect_seldom, keep_imports

    os.environ["BEATRA_API_KEY"] = KEY
    print(machine(), "\n")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        walk = Walk(write_job(Path(folder), URL, rows))
        collect_seldom()
        keep_imports()
        asyncio.run(walk.go())
    spent = walk.stages.spent
    total = sum(spent.values())
    lines = [[stage, f"{cpu / rows * 1e6:.1f}", f"{cpu / total:.0%}"] for stage, cpu in spent.items()]
    table(["stage", "CPU µs/row", "share"], [*lines, ["sum", f"{total / rows * 1e6:.1f}", ""]])


if __name__ == "__main__":
    main()
