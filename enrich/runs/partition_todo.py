"""What a run of a folder of outputs has to do: the units to be made, their rows, and when these are all decided."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrich.base.location import child
from enrich.errors import ConfigError
from enrich.files.input_files import common_format, has_wildcards
from enrich.files.output_lock import hold_output
from enrich.files.source import InputFiles, Source, find_input, open_source
from enrich.ledger.opening import open_ledger
from enrich.records import FAILED
from enrich.runs.fresh import scope_of, settle_fresh, under_way
from enrich.runs.job import fingerprint
from enrich.runs.partitions import (
    KNOWN,
    UNFINISHED,
    Made,
    UnitStanding,
    find_units,
    keep_known,
    left_over,
    look,
    read_known,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from enrich.base.clock import Clock
    from enrich.config import Config
    from enrich.records import RowStatus
    from enrich.runs.partitions import Unit

LOCKED_APART = 100  # partitions that a run holds one by one; for more of them it holds the whole folder
NAMED = 3  # files that a warning names

log = logging.getLogger("enrich")


@dataclass(frozen=True, slots=True)
class UnitToMake:
    """A unit to be made.

    Attributes:
        source: its rows.
        first_row: where they begin among all rows of the run.
        whole: whether these are all of its rows.
    """

    unit: Unit
    source: Source
    first_row: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Folder:
    """What is to be done in a folder of outputs.

    Attributes:
        found: all of the input that was chosen.
        made: what beside their input makes units what they are.
        todo: units to be made.
        rest: how the units stand that are left as they are.
        left_over: files of the folder that no input makes.
    """

    found: InputFiles
    made: Made
    todo: tuple[Unit, ...]
    rest: tuple[UnitStanding, ...]
    left_over: tuple[str, ...]

    def counts(self, parts: Sequence[UnitToMake], tallies: Sequence[Counter[RowStatus]]) -> dict[str, int]:
        """Count the units.

        Args:
            parts: put in place so far.
            tallies: rows per status of each.
        """
        done = sum(part.whole for part in parts)
        done_before = [unit for unit in self.rest if unit.state == "done" and not unit.has(("pending",))]
        unchanged = len(done_before)
        failed = sum(unit.has(FAILED) for unit in done_before)
        return {
            "selected": len(self.todo) + len(self.rest),
            "processed": done,
            "unchanged": unchanged,
            "pending": len(self.todo) + len(self.rest) - unchanged - done,
            "failed": failed + sum(any(tally[status] for status in FAILED) for tally in tallies),
            "left_over": len(self.left_over),
        }


class Ends:
    """Tells when all rows of a part have their verdicts.

    Attributes:
        tallies: rows per status of each part.
    """

    def __init__(self, parts: Sequence[UnitToMake]) -> None:
        self._firsts = [part.first_row for part in parts]
        self._left = [part.source.num_rows for part in parts]
        self._reached = [asyncio.Event() for _ in parts]
        self.tallies: list[Counter[RowStatus]] = [Counter() for _ in parts]

    def row(self, index: int, status: RowStatus) -> None:
        """Note that a row has its verdict."""
        number = bisect_right(self._firsts, index) - 1
        self.tallies[number][status] += 1
        self._left[number] -= 1
        if not self._left[number]:
            self._reached[number].set()

    def over(self) -> None:
        """Let go of those who wait: no row follows."""
        for event in self._reached:
            event.set()

    async def whole(self, number: int) -> bool:
        """Wait until a part has all its verdicts; False when it will not get them."""
        if self._left[number]:
            await self._reached[number].wait()
        return not self._left[number]


def places(config: Config) -> list[tuple[str, bool]]:
    """Give what a run holds against others: paths, and whether only against those who want them alone.

    Runs over different partitions of one folder may go on at once.
    """
    output = config.output
    if not (output.partitioned and config.input.partitions):
        return [(output.path, False)]
    units = find_units(find_input(config.input).files, output)
    if len(units) > LOCKED_APART:
        return [(output.path, False)]
    return [(output.path, True), *((path, False) for path in sorted(unit.output.path for unit in units))]


async def plan_folder(
    config: Config,
    wanted: Callable[[UnitStanding], bool],
    *,
    limit: int | None = None,
    clock: Clock | None = None,
) -> Folder:
    """Find out which units are to be made.

    Args:
        config: its output is a folder.
        wanted: whether a unit that stands so is to be made.
        limit: only the first so many rows.
        clock: of the ledger.

    Raises:
        UsageError: something is wrong that was found before anything was sent.
    """
    if not config.dedupe:
        raise ConfigError(
            "`dedupe: false` does not go with a folder as output: equal rows lie in partitions that are asked apart",
            hint="leave it out, or make `output` one file.",
        )
    found = await asyncio.to_thread(find_input, config.input)
    units = find_units(found.files, config.output)
    made = await _made(config, limit, clock)
    standings = await asyncio.to_thread(look, units, made)
    if made.fresh and not any(s.state != "done" or s.has(UNFINISHED) for s in standings):
        await _settle_fresh(config, limit, clock)  # a run was killed when everything was made
        made = replace(made, fresh=0)
    gone = await asyncio.to_thread(_left_over, config, units)
    todo = tuple(standing.unit for standing in standings if wanted(standing))
    rest = tuple(standing for standing in standings if not wanted(standing))
    return Folder(found, made, todo, rest, gone)


async def survey(config: Config) -> dict[str, int]:
    """Count the units of a folder by how they stand: done, changed, or new.

    Raises:
        UsageError: the input or the ledger cannot be read.
    """
    found = await asyncio.to_thread(find_input, config.input)
    units = find_units(found.files, config.output)
    standings = await asyncio.to_thread(look, units, await _made(config, None, None, read_only=True))
    counted = Counter(standing.state for standing in standings)
    return {state: counted[state] for state in ("done", "changed", "new")}


async def _made(config: Config, limit: int | None, clock: Clock | None, *, read_only: bool = False) -> Made:
    digest, fingerprints = fingerprint(config)
    scope = scope_of(config.input, limit)
    ledger = await open_ledger(config.ledger_location(), clock=clock, read_only=read_only)
    try:
        fresh = sum([await under_way(ledger, one, scope) for one in fingerprints])
    finally:
        await ledger.close()
    return Made(digest, fresh)


async def _settle_fresh(config: Config, limit: int | None, clock: Clock | None) -> None:
    _, fingerprints = fingerprint(config)
    ledger = await open_ledger(config.ledger_location(), clock=clock)
    try:
        await settle_fresh(ledger, fingerprints, scope_of(config.input, limit))
    finally:
        await ledger.close()


def open_todo(config: Config, folder: Folder, limit: int | None) -> Source:
    """Open the input of the units to be made; columns of text files keep the types that they had in earlier runs.

    Without any, a source of no rows with the columns that there are.

    Raises:
        InputError: as `enrich.files.source.open_source`.
    """
    units = folder.todo or [standing.unit for standing in folder.rest[:1]]
    files = tuple(file for unit in units for file in unit.files)
    known = read_known(config.output) if _is_text(config, folder.found) else None
    return open_source(
        config.input,
        limit=limit if folder.todo else 0,
        found=replace(folder.found, files=files),
        known=known,
    )


def _is_text(config: Config, found: InputFiles) -> bool:
    return common_format(found.files, config.input.format) in ("csv", "tsv", "jsonl")


def remember_types(config: Config, source: Source) -> None:
    """Keep the types of text files' columns for the runs to come, wide enough for those that go on at the same time.

    Raises:
        OutputError: the folder cannot be written.
    """
    if not _is_text(config, InputFiles(source.files, ())):
        return
    with hold_output(child(config.output.path, KNOWN), wait=True):
        known = {field.name: field for field in read_known(config.output) or ()}
        own = [field for field in source.schema if field.name not in folder_columns(source)]
        for field in own:
            if field.name in known and field.name not in config.input.csv.types:
                _tell_widened(config.output.path, field, known[field.name])
        wide = [_wider(field, known.get(field.name, field)) for field in own]
        schema = pa.schema({**known, **{field.name: field for field in wide}}.values())
        if schema != pa.schema(known.values()):
            keep_known(config.output, schema)


def _wider(one: pa.Field[Any], other: pa.Field[Any]) -> pa.Field[Any]:
    """Give the type that holds the values of both; text where no other does."""
    try:
        schemas = [pa.schema([one]), pa.schema([other])]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.field(one.name, pa.string())


def _tell_widened(output: str, now: pa.Field[Any], before: pa.Field[Any]) -> None:
    if now.type != before.type:
        log.warning(
            "%s: the column `%s` is %s in this run, %s in earlier ones: who reads the folder as one may refuse it; "
            "files that are removed are made anew by the next run",
            output,
            now.name,
            now.type,
            before.type,
        )


def folder_columns(source: Source) -> frozenset[str]:
    """Give the columns that the names of partition folders make."""
    return frozenset(key for file in source.files[:1] for key, _ in file.partition)


def cut(units: Sequence[Unit], source: Source) -> tuple[UnitToMake, ...]:
    """Cut the rows into units; a limit may cut the last one, and leave out those after it."""
    opened = {file.path: file for file in source.files}
    parts: list[UnitToMake] = []
    row = 0
    for unit in units:
        files = tuple(opened[file.path] for file in unit.files)
        total = sum(file.rows for file in files)
        count = min(total, source.num_rows - row)
        if total and not count:
            break
        parts.append(UnitToMake(unit, replace(source, files=files, num_rows=count), row, count == total))
        row += count
        if count < total:
            break
    return tuple(parts)


def _left_over(config: Config, units: Sequence[Unit]) -> tuple[str, ...]:
    """Find, and tell of, files without an input, where all of the input was looked at."""
    path = config.input.path
    if config.input.partitions or not isinstance(path, str) or has_wildcards(path):
        return ()
    gone = left_over(units, config.output)
    if gone:
        shown = ", ".join(gone[:NAMED]) + (", …" if len(gone) > NAMED else "")
        what = "file has" if len(gone) == 1 else "files have"
        log.warning("%s: %d %s no input: left alone: %s", config.output.path, len(gone), what, shown)
    return tuple(gone)
