"""`import enrich.polars` gives every DataFrame and LazyFrame the namespace `.beatra`."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import pyarrow as pa

try:
    import polars as pl
except ImportError as error:
    raise ImportError("enrich.polars needs Polars: pip install 'beatra-enrich[polars]'") from error

from enrich.frames import accessor as frames
from enrich.frames import looking
from enrich.frames.accessor import FrameSource
from enrich.frames.arguments import Pipeline, Planned, Question, Reported, taking
from enrich.frames.looking import Plan
from enrich.frames.objects import object_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from enrich.frames.accessor import Answers
    from enrich.frames.looking import Page

FOREIGN = (pl.Object, pl.Int128, pl.UInt128)  # types of Polars that Arrow has not
__all__ = ["FrameNamespace", "LazyNamespace", "Plan", "beatra"]


@pl.api.register_dataframe_namespace("beatra")
class FrameNamespace:
    """Ask a language model about every row: each distinct request is paid for once, none is lost.

    Example:
        >>> import polars as pl
        >>> import enrich.polars
        >>> df = pl.DataFrame({"review": ["Arrived late", "Splendid!"]})
        >>> out = df.beatra.complete("Is this praise? {{ review }}", name="praise", base_url="sandbox")
        >>> out["praise_status"].to_list()
        ['ok', 'ok']
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    @taking(Question)
    def complete(self, question: Question) -> pl.DataFrame:
        """Ask one question of every row, and give a new frame with the answers behind the columns there are.

        For a question named `answer` the new columns are `answer` (the text), one per field of the schema
        (`answer_<field>`), `answer_status`, `answer_error`, `answer_model`, the tokens, the credits and more. A row
        that fails raises nothing: its status says so. Running the same call again costs nothing for what was
        answered, and after an interrupt it goes on from there.

        {arguments}

        Raises:
            UsageError: something is wrong that was found before anything was sent.
            RunStopped: the call had to stop early (key refused, balance or budget spent, endpoint failing).
            RowsFailed: rows failed, and `errors` is `raise`.
        """
        return _joined(self._frame, frames.ask(question, _source(self._frame)))

    @taking(Question)
    async def acomplete(self, question: Question) -> pl.DataFrame:
        """Do what `complete` does, on the event loop that is running.

        {arguments}
        """
        return _joined(self._frame, await frames.aask(question, _source(self._frame)))

    @taking(Pipeline)
    def run(self, pipeline: Pipeline) -> pl.DataFrame:
        """Ask several steps of every row; a later one may use the answers of earlier ones.

        {arguments}
        """
        return _joined(self._frame, frames.ask(pipeline, _source(self._frame)))

    @taking(Pipeline)
    async def arun(self, pipeline: Pipeline) -> pl.DataFrame:
        """Do what `run` does, on the event loop that is running.

        {arguments}
        """
        return _joined(self._frame, await frames.aask(pipeline, _source(self._frame)))

    @taking(Question)
    def preview(self, question: Question) -> Page:
        """Write out the requests that `complete` would send for these rows; take `df.head(3)` for the first.

        {arguments}
        """
        return looking.preview(question, _source(self._frame))

    @taking(Planned)
    def plan(self, question: Planned) -> Plan:
        """Say what `complete` would come to: distinct requests, those that the ledger has answers to, tokens, credits, time.

        `print` of it is what `beatra-enrich plan` says. Nothing is sent, but for `sample`.

        {arguments}
        """
        return looking.plan(question, _source(self._frame))

    @taking(Reported)
    def report(self, question: Reported) -> Path:
        """Write a page on what was asked of this frame: rows, answers, runs, cost, failures, samples; sends nothing.

        Ask as `complete` was asked, or with `steps` as `run` was. Rows come from the ledger: what was not asked yet is
        `pending`. Runs are those that asked under this name.

        {arguments}

        Returns:
            Where the page lies.
        """
        return looking.report(question, _source(self._frame))


@pl.api.register_lazyframe_namespace("beatra")
class LazyNamespace:
    """Ask about every row of a query, which is collected in batches while answers come in.

    Example:
        >>> import polars as pl
        >>> import enrich.polars
        >>> cities = pl.LazyFrame({"city": ["Oslo", "Lima", "Bonn"]}).filter(pl.col("city") != "Lima")
        >>> cities.beatra.complete("Where is {{ city }}?", columns="answer", base_url="sandbox").columns
        ['city', 'answer']
    """

    def __init__(self, query: pl.LazyFrame) -> None:
        self._query = query

    @taking(Question)
    def complete(self, question: Question) -> pl.DataFrame:
        """Collect the query and ask one question of every row; see `DataFrame.beatra.complete`.

        With `ledger=None` it is collected batch by batch while answers come in, else first, so that rows that would be
        paid for again are found.

        {arguments}
        """
        chunks: list[pl.DataFrame] = []
        answers = frames.ask(question, _streamed(self._query, chunks))
        return _joined(_collected(self._query, chunks), answers)

    @taking(Question)
    async def acomplete(self, question: Question) -> pl.DataFrame:
        """Do what `complete` does, on the event loop that is running.

        {arguments}
        """
        chunks: list[pl.DataFrame] = []
        answers = await frames.aask(question, _streamed(self._query, chunks))
        return _joined(_collected(self._query, chunks), answers)

    @taking(Pipeline)
    def run(self, pipeline: Pipeline) -> pl.DataFrame:
        """Collect the query and ask several steps of every row.

        {arguments}
        """
        chunks: list[pl.DataFrame] = []
        answers = frames.ask(pipeline, _streamed(self._query, chunks))
        return _joined(_collected(self._query, chunks), answers)


@overload
def beatra(data: pl.DataFrame) -> FrameNamespace: ...
@overload
def beatra(data: pl.LazyFrame) -> LazyNamespace: ...
def beatra(data: pl.DataFrame | pl.LazyFrame) -> FrameNamespace | LazyNamespace:
    """Give what `data.beatra` is, to type checkers as well: they know nothing of registered namespaces."""
    return FrameNamespace(data) if isinstance(data, pl.DataFrame) else LazyNamespace(data)


def _source(frame: pl.DataFrame) -> FrameSource:
    return FrameSource(frame.columns, frame.height, lambda needed: frames.batches_of(_arrow(frame, needed)))


def _arrow(frame: pl.DataFrame, needed: Sequence[str]) -> pa.Table:
    """Give columns as Arrow, without a copy; or, when none is needed, the rows' number."""
    if not needed:
        return pa.table({"row": pa.nulls(frame.height)})
    chosen = frame.select(needed)
    return chosen.with_columns(_as_texts(c) for c in chosen if c.dtype in FOREIGN).to_arrow()


def _as_texts(column: pl.Series) -> pl.Series:
    """Give what Arrow has no type for as text."""
    if column.dtype != pl.Object:
        return column.cast(pl.String)
    texts = [None if value is None else object_text(value, column.name) for value in column]
    return pl.Series(column.name, texts, dtype=pl.String)


def _streamed(query: pl.LazyFrame, chunks: list[pl.DataFrame]) -> FrameSource:
    """Collect a query batch by batch; what was collected is added to the chunks."""
    schema = query.collect_schema()

    def take(needed: Sequence[str]) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
        return _arrow(pl.DataFrame(schema=schema), needed).schema, collect(needed)

    def collect(needed: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for chunk in query.collect_batches(chunk_size=frames.ASKED_AT_ONCE):
            chunks.append(chunk)
            yield from frames.batches_of(_arrow(chunk, needed))[1]

    return FrameSource(schema.names(), None, take)


def _collected(query: pl.LazyFrame, chunks: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(chunks) if chunks else pl.DataFrame(schema=query.collect_schema())


def _joined(frame: pl.DataFrame, answers: Answers) -> pl.DataFrame:
    """Put the answers' columns behind the frame's."""
    if answers.rows is not None:
        frame = frame[answers.rows]
    return frame.hstack(pl.DataFrame(answers.table))
