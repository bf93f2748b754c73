"""`import enrich.pandas` gives every DataFrame and Series the accessor `.beatra`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd
import pyarrow as pa

from enrich.errors import ConfigError
from enrich.frames import accessor as frames
from enrich.frames import looking
from enrich.frames.accessor import FrameSource
from enrich.frames.arguments import Pipeline, Planned, Question, Reported, taking
from enrich.frames.looking import Plan
from enrich.frames.objects import object_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from enrich.frames.accessor import Answers
    from enrich.frames.looking import Page

__all__ = ["FrameAccessor", "Plan", "SeriesAccessor", "beatra"]

_IS_3 = int(pd.__version__.partition(".")[0]) >= 3
TEXT = pd.StringDtype(na_value=np.nan) if _IS_3 else pd.StringDtype("pyarrow")  # what pandas reads texts as
DTYPES: dict[pa.DataType, Any] = {
    pa.string(): TEXT,
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


@pd.api.extensions.register_dataframe_accessor("beatra")
class FrameAccessor:
    """Ask a language model about every row: each distinct request is paid for once, none is lost.

    Example:
        >>> import pandas as pd
        >>> import enrich.pandas
        >>> df = pd.DataFrame({"review": ["Arrived late", "Splendid!"]}, index=["a", "b"])
        >>> out = df.beatra.complete("Is this praise? {{ review }}", name="praise", base_url="sandbox")
        >>> out["praise_status"].to_dict()
        {'a': 'ok', 'b': 'ok'}
    """

    def __repr__(self) -> str:
        return _told(self, self._frame.shape)

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    @taking(Question)
    def complete(self, question: Question) -> pd.DataFrame:
        """Ask one question of every row, and give a new frame with the answers beside the columns there are.

        Index, order, dtypes and attrs stay as they are. For a question named `answer` the new columns are `answer`
        (the text), one per field of the schema (`answer_<field>`), `answer_status`, `answer_error`, `answer_model`,
        the tokens, the credits and more; `attrs["beatra"]` sums the call up. A row that fails raises nothing: its
        status says so. Running the same call again costs nothing for what was answered, and after an interrupt it
        goes on from there.

        {arguments}

        Raises:
            UsageError: something is wrong that was found before anything was sent.
            RunStopped: the call had to stop early (key refused, balance or budget spent, endpoint failing).
            RowsFailed: rows failed, and `errors` is `raise`.

        Example:
            >>> import pandas as pd
            >>> import enrich.pandas
            >>> df = pd.DataFrame({"city": ["Oslo", "Lima"], "stars": [5, 2]})
            >>> schema = {"type": "object", "properties": {"country": {"type": "string"}}}
            >>> out = df.beatra.complete(
            ...     "Where is {{ city }}?", name="place", schema=schema, when="{{ stars > 3 }}", base_url="sandbox"
            ... )
            >>> out[["city", "place_status"]].values.tolist()
            [['Oslo', 'ok'], ['Lima', 'skipped']]
            >>> out.attrs["beatra"]["rows"]
            2
        """
        return _joined(self._frame, frames.ask(question, _source(self._frame)))

    @taking(Question)
    async def acomplete(self, question: Question) -> pd.DataFrame:
        """Do what `complete` does, on the event loop that is running.

        {arguments}
        """
        return _joined(self._frame, await frames.aask(question, _source(self._frame)))

    @taking(Pipeline)
    def run(self, pipeline: Pipeline) -> pd.DataFrame:
        """Ask several steps of every row; a later one may use the answers of earlier ones.

        {arguments}

        Example:
            >>> import pandas as pd
            >>> import enrich.pandas
            >>> df = pd.DataFrame({"review": ["Arrived late"]})
            >>> steps = [
            ...     {"name": "tone", "prompt": "The tone of: {{ review }}"},
            ...     {"name": "reply", "prompt": "Reply to this {{ tone }} review: {{ review }}"},
            ... ]
            >>> df.beatra.run(steps, columns="answer", base_url="sandbox").columns.tolist()
            ['review', 'tone', 'reply']
        """
        return _joined(self._frame, frames.ask(pipeline, _source(self._frame)))

    @taking(Pipeline)
    async def arun(self, pipeline: Pipeline) -> pd.DataFrame:
        """Do what `run` does, on the event loop that is running.

        {arguments}
        """
        return _joined(self._frame, await frames.aask(pipeline, _source(self._frame)))

    @taking(Question)
    def preview(self, question: Question) -> Page:
        """Write out the requests that `complete` would send for these rows; take `df.head(3)` for the first.

        {arguments}

        Example:
            >>> import pandas as pd
            >>> import enrich.pandas
            >>> pd.DataFrame({"city": ["Oslo"]}).beatra.preview("Where is {{ city }}?", base_url="sandbox")
            # row 1, step answer
            POST sandbox/chat/completions
            Idempotency-Key: 96b42bc5-a924-541a-b85c-efa71c134a11
            {
              "model": "auto",
              "messages": [
                {
                  "role": "user",
                  "content": "Where is Oslo?"
                }
              ]
            }
            <BLANKLINE>
        """
        return looking.preview(question, _source(self._frame))

    @taking(Planned)
    def plan(self, question: Planned) -> Plan:
        """Say what `complete` would come to: distinct requests, those that the ledger has answers to, tokens, credits, time.

        `print` of it is what `beatra-enrich plan` says. Nothing is sent, but for `sample`.

        {arguments}

        Example:
            >>> import pandas as pd
            >>> import enrich.pandas
            >>> df = pd.DataFrame({"city": ["Oslo", "Lima", "Oslo"]})
            >>> df.beatra.plan("Where is {{ city }}?", ledger=None, base_url="sandbox")
            Plan(rows=3, requests=2, known=0, to_ask=2, reasked=None)
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


@pd.api.extensions.register_series_accessor("beatra")
class SeriesAccessor:
    """Ask a language model about every value; in the template it is called `value`.

    Example:
        >>> import pandas as pd
        >>> import enrich.pandas
        >>> cities = pd.Series(["Oslo", "Lima"], index=[10, 20])
        >>> cities.beatra.complete("Where is {{ value }}?", base_url="sandbox").index.tolist()
        [10, 20]
    """

    def __repr__(self) -> str:
        return _told(self, self._frame.shape[:1])

    def __init__(self, series: pd.Series[Any]) -> None:
        self._frame = series.to_frame("value")

    @taking(Question)
    def complete(self, question: Question) -> pd.Series[Any]:
        """Ask one question of every value, and give the answers' texts as a Series with the same index.

        A value without an answer is missing in it, and one warning counts those.

        {arguments}
        """
        return _texts(self._frame, frames.ask(_plain(question), _source(self._frame)), question.name)

    @taking(Question)
    async def acomplete(self, question: Question) -> pd.Series[Any]:
        """Do what `complete` does, on the event loop that is running.

        {arguments}
        """
        answers = await frames.aask(_plain(question), _source(self._frame))
        return _texts(self._frame, answers, question.name)


@overload
def beatra(data: pd.DataFrame) -> FrameAccessor: ...
@overload
def beatra(data: pd.Series[Any]) -> SeriesAccessor: ...
def beatra(data: pd.DataFrame | pd.Series[Any]) -> FrameAccessor | SeriesAccessor:
    """Give what `data.beatra` is, to type checkers as well: they know nothing of registered accessors.

    Example:
        >>> import pandas as pd
        >>> from enrich.pandas import beatra
        >>> beatra(pd.Series(["Oslo"])).complete("Where is {{ value }}?", base_url="sandbox").size
        1
    """
    return FrameAccessor(data) if isinstance(data, pd.DataFrame) else SeriesAccessor(data)


# --- the frame → batches --------------------------------------------------------------------------------


def _source(frame: pd.DataFrame) -> FrameSource:
    names = [_name(label) for label in frame.columns]

    def take(needed: Sequence[str]) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
        if not needed:
            return frames.batches_of(pa.table({"row": pa.nulls(len(frame))}))
        arrays = [_arrow(frame.iloc[:, names.index(name)]) for name in needed]
        return frames.batches_of(pa.Table.from_arrays(arrays, names=list(needed)))

    return FrameSource(names, len(frame), take)


def _name(label: Any) -> str:
    """Call a column by what a template can write: the parts of a tuple are joined by underscores."""
    if isinstance(label, tuple):
        return "_".join(str(part) for part in label if part != "")
    return str(label)


def _arrow(series: pd.Series[Any]) -> pa.ChunkedArray[Any]:
    """Take one column to Arrow; what Arrow has no type for becomes the text that Python writes for it."""
    try:
        array = pa.chunked_array(pa.array(series, from_pandas=True))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return _as_texts(series, str(series.name))
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    return _as_texts(series, str(series.name)) if isinstance(kind, pa.BaseExtensionType) else array


def _as_texts(series: pd.Series[Any], name: str) -> pa.ChunkedArray[Any]:
    missing = series.isna().to_numpy()
    texts = [None if gone else object_text(value, name) for value, gone in zip(series, missing, strict=True)]
    return pa.chunked_array([pa.array(texts, pa.large_string())])


# --- answers → the frame --------------------------------------------------------------------------------


def _joined(frame: pd.DataFrame, answers: Answers) -> pd.DataFrame:
    """Put the answers' columns behind the frame's, which are not touched."""
    if answers.rows is not None:
        frame = frame.take(answers.rows)
    new = _answered(answers, frame.index)
    new.columns = _labels(frame.columns, answers.table.column_names)
    if answers.rows is not None:  # an index with repeats cannot be aligned, and need not be
        whole = frame.index
        frame, new = frame.reset_index(drop=True), new.reset_index(drop=True)
    out = pd.concat([frame, new], axis=1)
    if answers.rows is not None:
        out.index = whole
    out.attrs = {**frame.attrs, "beatra": answers.summary.to_dict()}
    return out


def _answered(answers: Answers, index: pd.Index[Any]) -> pd.DataFrame:
    new: pd.DataFrame = answers.table.to_pandas(types_mapper=_dtype, ignore_metadata=True)
    new.index = index
    return new


def _labels(columns: pd.Index[Any], names: list[str]) -> pd.Index[Any]:
    """Label new columns so that they fit beside those there are."""
    if isinstance(columns, pd.MultiIndex):
        rest = ("",) * (columns.nlevels - 1)
        return pd.MultiIndex.from_tuples([(name, *rest) for name in names], names=columns.names)
    return pd.Index(names, name=columns.name)


def _dtype(kind: pa.DataType) -> Any:
    """Choose a column's dtype: nullable numbers, texts, categories, timestamps; Arrow's own for all else."""
    if pa.types.is_dictionary(kind) or pa.types.is_timestamp(kind):
        return None  # pandas' own
    return DTYPES.get(kind) or pd.ArrowDtype(kind)


def _plain(question: Question) -> Question:
    """Make sure that a Series can hold the answers."""
    if question.schema is not None or question.steps is not None:
        raise ConfigError(
            "a Series of answers holds their texts alone, and a schema or several steps give columns",
            hint='series.to_frame("value").beatra gives a frame of columns.',
        )
    return dataclasses.replace(question, columns="text", rename=None)


def _texts(frame: pd.DataFrame, answers: Answers, name: str) -> pd.Series[Any]:
    texts = _answered(answers, frame.index)[name]
    texts.attrs = {"beatra": answers.summary.to_dict()}
    return texts


def _told(accessor: object, shape: tuple[int, ...]) -> str:
    """Say what an accessor is of and what can be done with it."""
    methods = ", ".join(name for name in dir(accessor) if not name.startswith("_"))
    return f"<beatra of {' × '.join(f'{size:,}' for size in shape)}: {methods}>"
