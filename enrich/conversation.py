"""One row's exchange with the model for one step: first ask, fallback, re-ask; told as a generator.

The generator yields what it wants to know next (a `Query`) and is sent how that request ended. It holds no
state that the ledger does not: run again over the same ledger, it takes the same turns and asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from enrich.answer import Answer, AnswerReader, reask_messages
from enrich.records import Ask, Completion, Failure, Settled, Verdict
from enrich.retry import UNSUPPORTED

if TYPE_CHECKING:
    from enrich.fallback import ModelBreaker
    from enrich.records import RowStatus
    from enrich.request import Prepared, RequestBuilder

ROUND_STRIDE = 1 << 48  # between ordinals of the rounds that `retry` adds; far above any count of duplicates
MODES = ("json_schema", "json_object", "prompt")  # in the order of how much the endpoint must be able to do


@dataclass(frozen=True, slots=True)
class Query:
    """What a conversation wants to know.

    Attributes:
        ask: the request in question.
        want: ``answer`` (send it unless the ledger knows it), ``known`` (only what the ledger knows; the reply
            may be None) or ``earlier`` (answers to the same question under another schema).
        fallback: whether there is another model to turn to.
    """

    ask: Ask
    want: Literal["answer", "known", "earlier"] = "answer"
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class _Via:
    """The way a request takes: how the schema is told, and the model asked."""

    mode: str
    model: str


Reply = Settled | list[Settled] | None
Talk = Generator[Query, Reply, Verdict]


class Conversation:
    """Holds the conversations of one step.

    Attributes:
        strayed: whether some row had to leave the first model or mode, or was asked again by `retry`: only
            then is it worth looking for answers elsewhere than under the first request's key.
    """

    def __init__(
        self,
        builder: RequestBuilder,
        reader: AnswerReader,
        breaker: ModelBreaker,
        *,
        strayed: bool = False,
        retry: frozenset[RowStatus] = frozenset(),
    ) -> None:
        step = builder.step
        self.builder = builder
        self.strayed = strayed
        self._reader = reader
        self._breaker = breaker
        self._retry = retry
        self._reasks = step.reask
        self._models = list(dict.fromkeys([step.model, *step.fallback_models]))
        modes = MODES[MODES.index(step.schema_mode) :] if builder.schema is not None else (step.schema_mode,)
        self._modes = list(modes)
        self._first_mode = 0

    def hold(self, prepared: Prepared, ordinal: int) -> Talk:
        """Hold one row's conversation.

        Args:
            prepared: the rendered row.
            ordinal: see `enrich.request.idempotency_key`.
        """
        verdict = yield from self._round(prepared, ordinal, parent=None)
        asked_again = False
        while verdict.status in ("invalid_output", "truncated", "filtered") and (self.strayed or self._retry):
            ordinal += ROUND_STRIDE
            ask = self.builder.ask(prepared, ordinal=ordinal, parent=verdict.key)
            known = yield Query(ask, "known")
            if known is None and (asked_again or verdict.status not in self._retry):
                return verdict
            asked_again = known is None or (isinstance(known, Settled) and known.fresh)
            verdict = yield from self._round(prepared, ordinal, parent=verdict.key)
        return verdict

    def _round(self, prepared: Prepared, ordinal: int, parent: bytes | None) -> Talk:
        reused = yield from self._earlier_answer(prepared, ordinal, parent)
        if reused is not None:
            return reused
        settled, via = yield from self._first_answer(prepared, ordinal, parent)
        verdict = self._judge(settled)
        for _ in range(self._reasks):
            answer = self._answer_of(settled)
            if answer is None or answer.status != "invalid_output" or not answer.text:
                break
            further = reask_messages(answer)
            ask = self._via(via, prepared, ordinal=ordinal, parent=settled.key, further=further)
            settled = yield from self._send(Query(ask))
            verdict = self._judge(settled)
        options = self._twice_the_tokens(prepared)
        if verdict.status == "truncated" and options:
            longer = self._via(via, prepared, ordinal=ordinal, parent=settled.key, options=options)
            settled = yield from self._send(Query(longer))
            verdict = self._judge(settled)
        return verdict

    def _via(self, via: _Via, prepared: Prepared, **kwargs: Any) -> Ask:
        return self.builder.ask(prepared, model=via.model, mode=via.mode, **kwargs)

    def _send(self, query: Query) -> Generator[Query, Reply, Settled]:
        reply = yield query
        assert isinstance(reply, Settled)  # noqa: S101  # who drives a conversation answers an `answer` query
        return reply

    def _earlier_answer(
        self, prepared: Prepared, ordinal: int, parent: bytes | None
    ) -> Generator[Query, Reply, Verdict | None]:
        """Look for an answer to the same question that was given under another schema and still serves."""
        if self.builder.schema is None:
            return None
        ask = self.builder.ask(prepared, ordinal=ordinal, parent=parent, mode=self._modes[0])
        if (yield Query(ask, "known")) is not None:
            return None
        earlier = yield Query(ask, "earlier")
        for settled in earlier if isinstance(earlier, list) else []:
            verdict = self._judge(settled)
            if verdict.status == "ok":
                return verdict
        return None

    def _first_answer(
        self, prepared: Prepared, ordinal: int, parent: bytes | None
    ) -> Generator[Query, Reply, tuple[Settled, _Via]]:
        """Find an answer that is paid for, under any model or mode; else ask, model after model."""
        if self.strayed:
            for via in (_Via(mode, model) for mode in self._modes for model in self._models):
                reply = yield Query(self._via(via, prepared, ordinal=ordinal, parent=parent), "known")
                if isinstance(reply, Settled) and isinstance(reply.result, Completion):
                    return reply, via
        models = self._breaker.usable(self._models)
        while True:
            via = _Via(self._modes[self._first_mode], models[0])
            ask = self._via(via, prepared, ordinal=ordinal, parent=parent)
            settled = yield from self._send(Query(ask, fallback=len(models) > 1))
            if isinstance(settled.result, Completion):
                self._breaker.served(via.model)
                return settled, via
            if self._refuses_mode(settled.result):
                self._leave_mode(via.mode)
            elif settled.result.code in _NEXT_MODEL and len(models) > 1:
                self.strayed = True
                self._breaker.unavailable(models.pop(0))
            else:
                return settled, via
            parent = ask.key

    def _refuses_mode(self, failure: Failure) -> bool:
        return (
            failure.code == "unsupported_option"
            and "response_format" in failure.message
            and self.builder.schema is not None
            and self._modes[self._first_mode] != MODES[-1]
        )

    def _leave_mode(self, refused: str) -> None:
        self.strayed = True
        self._first_mode = max(self._first_mode, self._modes.index(refused) + 1)

    def _twice_the_tokens(self, prepared: Prepared) -> dict[str, int]:
        """Give the token limit, doubled, when `on_truncated` asks for it and the step has one."""
        step = self.builder.step
        if step.on_truncated != "retry":
            return {}
        limits = {
            n: prepared.options.get(n, getattr(step, n)) for n in ("max_tokens", "max_completion_tokens")
        }
        return {name: 2 * limit for name, limit in limits.items() if isinstance(limit, int)}

    def _answer_of(self, settled: Settled) -> Answer | None:
        return self._reader.read(settled.result) if isinstance(settled.result, Completion) else None

    def _judge(self, settled: Settled) -> Verdict:
        return judge(self._reader, settled)


_NEXT_MODEL = UNSUPPORTED | {"model_unavailable"}


def judge(reader: AnswerReader, settled: Settled) -> Verdict:
    """Turn how a request ended into how the row stands."""
    result = settled.result
    if isinstance(result, Completion):
        answer = reader.read(result)
        return Verdict(answer.status, answer.error, settled.key, answer.text, answer.values, result.model)
    if settled.skipped:
        return Verdict("skipped", f"given_up: was in doubt ({result})", settled.key)
    return Verdict("in_doubt" if settled.in_doubt else "error", str(result), settled.key)
