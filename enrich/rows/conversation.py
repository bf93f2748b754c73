"""One row's exchange with the model for one step: first ask, fallback, re-ask; told as a generator.

The generator yields what it wants to know next (a `Query`) and is sent how that request ended. It holds no
state that the ledger does not: run again over the same ledger, it takes the same turns and asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from enrich.answer.ballot import Ballot
from enrich.answer.escalation import Escalation
from enrich.answer.evidence import EvidenceCheck
from enrich.answer.reader import AnswerReader, reask_messages
from enrich.engine.formats import Formats
from enrich.engine.retry import leaves_model, refuses_format
from enrich.prompt.idempotency import GENERATION_STRIDE, ROUND_STRIDE, VOTE_STRIDE
from enrich.prompt.request import LOOSE_MODE
from enrich.records import Ask, Completion, Outcome, Settled, frozen
from enrich.rows.judged import judge
from enrich.wire.meanings import meaning

if TYPE_CHECKING:
    from enrich.config import StepConfig
    from enrich.engine.fallback import ModelBreaker
    from enrich.prompt.request import Prepared, RequestBuilder
    from enrich.records import Failure, RowStatus
    from enrich.schema.schema import AnswerSchema

# In the order of how much the endpoint must be able to do. The second asks for what a schema that is not strict can have.
MODES = ("json_schema", LOOSE_MODE, "json_object", "prompt")
UNFIT: tuple[RowStatus, ...] = (
    "invalid_output",
    "unsupported",
    "truncated",
    "filtered",
)  # answered, but not as it should be

MOST_SAID = 1_000  # characters of a row's error


@frozen
class Query:
    """What a conversation wants to know.

    Attributes:
        ask: the request in question.
        want: ``answer`` (send it unless the ledger knows it), ``known`` (only what the ledger knows; the reply
            may be None) or ``earlier`` (all answers to the same question, also under another schema).
        fallback: given where there is another model to turn to; says whether this one was given up meanwhile.
        max_tokens: the longest answer that the request allows, or None.
        corrects: whether it asks for a better answer than one that an earlier run was given.
        own_model: whether the row names its model by itself: that it is not served is this row's failure alone.
        again: whether `retry` may send it again where it failed: not where the row has an answer of another model.
    """

    ask: Ask
    want: Literal["answer", "known", "earlier"] = "answer"
    fallback: Callable[[], bool] | None = None
    max_tokens: int | None = None
    corrects: bool = False
    own_model: bool = False
    again: bool = True


@frozen
class _Via:
    """The way a request takes: how the schema is told, and the model asked."""

    mode: str
    model: str


@frozen
class _Turn:
    """What is asked at one point of a conversation, whichever way it goes.

    Attributes:
        further: messages after the step's own: bad answers, and what is wrong with them.
        options: request fields that replace the step's.
        corrects: whether the bad answer is an earlier run's.
        again: whether `retry` may ask it again.
    """

    prepared: Prepared
    ordinal: int
    parent: bytes | None = None
    further: tuple[dict[str, str], ...] = ()
    options: tuple[tuple[str, int], ...] = ()
    corrects: bool = False
    again: bool = True


QueryResult = Settled | list[Settled] | None
Talk = Generator[Query, QueryResult, Outcome]


class Conversation:
    """Holds the conversations of one step.

    Attributes:
        strayed: whether some row had to leave the first model or mode, or was asked again by `retry`: only
            then is it worth looking for answers elsewhere than under the first request's key.
        reused: how many rows were served an answer that was given under another schema.
        older: how many generations of answers before the one that is asked for may serve: those from before a
            `--fresh` that was for other rows.
    """

    def __init__(
        self,
        builder: RequestBuilder,
        reader: AnswerReader,
        breaker: ModelBreaker,
        *,
        strayed: bool = False,
        retry: frozenset[RowStatus] = frozenset(),
        formats: Formats | None = None,
    ) -> None:
        step = builder.step
        self.builder = builder
        self.strayed = strayed
        self.older = 0
        self.reused = 0
        self._reuses = step.reuse and builder.rereads
        self._reader = reader
        self._breaker = breaker
        self._retry = retry
        self._own_models = bool(builder.models.templates)
        self._formats = formats or Formats()
        self._schema = builder.schema.digest if builder.schema is not None else ""
        self._modes = _modes(step, builder.schema)
        self._ballot = Ballot(step, builder.schema)
        self.escalation = Escalation(step, builder.schema)
        self._evidence = EvidenceCheck(step, builder.schema)
        corrected: tuple[RowStatus, ...] = ("invalid_output", "unsupported")
        self._corrected = corrected if step.on_unsupported == "reask" else corrected[:1]

    def hold(self, prepared: Prepared, ordinal: int, *, anew: bool = False) -> Talk:
        """Hold one row's conversation.

        Args:
            prepared: the rendered row.
            ordinal: see `enrich.prompt.idempotency.idempotency_key`.
            anew: ask for an answer of this generation, whatever there is of older ones.
        """
        if not anew:
            ordinal = yield from self._latest(prepared, ordinal)
        if self.escalation:
            return (yield from self._escalated(prepared, ordinal))
        if self._ballot.most == 1:
            return (yield from self._answer(_Turn(prepared, ordinal)))
        return (yield from self._voted(prepared, ordinal))

    def _voted(self, prepared: Prepared, ordinal: int) -> Talk:
        """Ask for one answer after the other, each under a key of its own, until the majority is certain.

        Each request follows the one before it, so that the last one leads to all that the row cost. Where one has no
        answer, the row has none: a later run asks for that one alone.
        """
        cast: list[Outcome] = []
        while not cast or not self._ballot.is_settled(cast):
            number = len(cast)
            asked = replace(prepared, models=self._ballot.models(number, prepared.models))
            parent = cast[-1].key if cast else None
            outcome = yield from self._answer(_Turn(asked, ordinal + number * VOTE_STRIDE, parent))
            if outcome.source is None:
                return outcome
            cast.append(outcome)
        return self._ballot.decide(cast)

    def _escalated(self, prepared: Prepared, ordinal: int) -> Talk:
        """Ask one model after the other, as long as there is doubt about the answer.

        `retry` asks that model again which the row ended with: what another one has answered is no row that failed.
        """
        told: list[Outcome] = []
        for number in range(self.escalation.count):
            asked = replace(prepared, models=self.escalation.models(number, prepared.models))
            is_last = number + 1 == self.escalation.count
            again = is_last and not any(earlier.status == "ok" for earlier in told)
            outcome = yield from self._answer(_Turn(asked, ordinal, again=again))
            if not is_last and self._retry and not self.escalation.passes_on(number, outcome):
                outcome = yield from self._answer(_Turn(asked, ordinal))
            told.append(outcome)
            if is_last or not self.escalation.passes_on(number, outcome):
                break
        return self.escalation.decide(told)

    def _answer(self, turn: _Turn) -> Talk:
        """Hold the conversation for one answer, in as many rounds as `retry` has added."""
        prepared, ordinal = turn.prepared, turn.ordinal
        outcome = yield from self._round(turn)
        asked_again = False
        while outcome.status in UNFIT and (self.strayed or self._retry):
            ordinal += ROUND_STRIDE
            turn = _Turn(prepared, ordinal, outcome.key, again=turn.again)
            known = yield from self._known(turn)
            if known is None and (asked_again or not turn.again or outcome.status not in self._retry):
                return outcome
            asked_again = asked_again or known is None or known[0].fresh or known[0].open
            outcome = yield from self._round(turn)
        return outcome

    def _latest(self, prepared: Prepared, ordinal: int) -> Generator[Query, QueryResult, int]:
        """Find the latest generation in which this row was asked; one that never was is asked in the oldest."""
        for _ in range(self.older):
            turn = _Turn(prepared, ordinal)
            ways = self._ways(turn)
            for via in ways:
                if (yield self._query(turn, via, want="known")) is not None:
                    return ordinal
            if self._reuses and (yield self._query(turn, ways[0], want="earlier")):
                return ordinal
            ordinal -= GENERATION_STRIDE
        return ordinal

    def _round(self, turn: _Turn) -> Talk:
        """Ask, and ask again as long as the answer is unfit and may be improved on."""
        left = self.builder.step.reask
        while True:
            settled = yield from self._settled(turn)
            outcome = self._judged(turn, settled)
            if left and outcome.text is not None and outcome.status in self._corrected:
                left -= 1
                further = (*turn.further, *self._correction(turn, settled))
                turn = replace(turn, parent=settled.key, further=further, corrects=not settled.fresh)
            elif outcome.status == "truncated" and not turn.options and (more := self._longer(turn)):
                turn = replace(turn, parent=settled.key, options=more)
            elif outcome.status in UNFIT and (earlier := (yield from self._earlier(turn))) is not None:
                return self._judged(turn, earlier)
            else:
                return outcome

    def _settled(self, turn: _Turn) -> Generator[Query, QueryResult, Settled]:
        """Find the answer that is paid for, whichever way it was asked for; else ask, model after model."""
        known = None
        self.strayed = self.strayed or self._breaker.troubled
        follows = (
            self.builder.rereads and turn.parent is not None
        )  # what was wrong may be said in other words now
        if self.strayed or self._reuses or follows:
            known = yield from self._known(turn)
            if known is not None and isinstance(known[0].result, Completion):
                return known[0]
            looks = known is None and (self._reuses or follows)
            earlier = (yield from self._earlier(turn)) if looks else None
            if earlier is not None:
                return earlier
        return (yield from self._asked(turn, known[1] if known is not None else None))

    def _known(self, turn: _Turn) -> Generator[Query, QueryResult, tuple[Settled, _Via] | None]:
        """Look for a request that was answered; else for one that may be paid for without an answer."""
        waiting: tuple[Settled, _Via] | None = None
        for via in self._ways(turn):
            reply = yield self._query(turn, via, want="known")
            if not isinstance(reply, Settled):
                continue
            if isinstance(reply.result, Completion):
                return reply, via
            if waiting is None and (reply.open or reply.in_doubt or reply.skipped):
                waiting = reply, via
        return waiting

    def _first(self, turn: _Turn) -> _Via:
        return _Via(self._modes[0], turn.prepared.models[0])

    def _ways(self, turn: _Turn) -> list[_Via]:
        """Give the ways that requests may have taken."""
        if not self.strayed:
            return [self._first(turn)]
        return [_Via(mode, model) for mode in self._modes for model in turn.prepared.models]

    def _earlier(self, turn: _Turn) -> Generator[Query, QueryResult, Settled | None]:
        """Look for an answer to the same question that serves now: one to a re-ask, given under another rule.

        Of answers under another schema, which were asked for by another request, it looks only with `reuse`.
        """
        if not self.builder.rereads:
            return None
        earlier = yield self._query(turn, self._first(turn), want="earlier")
        fitting = [s for s in earlier or () if self._judged(turn, s).status == "ok"]  # type: ignore[union-attr]  # an `earlier` query is answered by a list
        if not fitting:
            return None
        same = self._of_this_schema(turn, earlier)  # type: ignore[arg-type]  # see above
        for settled in fitting:
            if settled.key in same:
                return settled
        if not self._reuses:
            return None
        self.reused += 1
        return fitting[0]

    def _of_this_schema(self, turn: _Turn, earlier: list[Settled]) -> set[bytes]:
        """Give the keys of those answers that go back to a first request as this step makes it now."""
        first = _Turn(turn.prepared, turn.ordinal % ROUND_STRIDE)
        ways = (_Via(mode, model) for mode in self._modes for model in turn.prepared.models)
        same = {self._query(first, via).ask.key for via in ways}
        for settled in earlier:  # oldest first: a request comes after the one that it follows
            if settled.parent in same:
                same.add(settled.key)
        return same

    def _asked(self, turn: _Turn, via: _Via | None) -> Generator[Query, QueryResult, Settled]:
        """Ask, first by the way given, then by what is left of ways and models."""
        every, first = turn.prepared.models, self._first(turn)
        models = list(every[every.index(via.model) :]) if via else self._breaker.usable(every)
        while True:
            via = via or self._way(models[0])
            self.strayed = self.strayed or via != first
            given_up = self._breaker.watch(via.model) if len(models) > 1 else None
            query = self._query(turn, via, fallback=given_up)
            settled = yield query
            assert isinstance(settled, Settled)  # noqa: S101  # who drives a conversation answers an `answer` query
            failure = settled.result
            if isinstance(failure, Completion):
                self._breaker.served(via.model)
                return settled
            if settled.in_doubt or settled.skipped:
                return settled
            if via.mode != self._modes[-1] and refuses_format(failure):
                self._formats.refused(via.model, via.mode, self._schema, failure)
            elif len(models) > 1 and leaves_model(failure):
                self._leave_model(models.pop(0), failure)
            else:
                return settled
            turn, via = replace(turn, parent=query.ask.key), None

    def _way(self, model: str) -> _Via:
        """Give the first way that a model is not known to refuse; the last one asks nothing of it."""
        taken = (mode for mode in self._modes if self._formats.takes(model, mode, self._schema))
        return _Via(next(taken, self._modes[-1]), model)

    def _leave_model(self, model: str, failure: Failure) -> None:
        if meaning(failure) == "no_model":
            self._breaker.gone(model)
        else:
            self._breaker.unavailable(model)

    def _query(
        self,
        turn: _Turn,
        via: _Via,
        *,
        want: Literal["answer", "known", "earlier"] = "answer",
        fallback: Callable[[], bool] | None = None,
    ) -> Query:
        options = dict(turn.options) if turn.options else {}
        ask = self.builder.ask(
            turn.prepared,
            model=via.model,
            ordinal=turn.ordinal,
            parent=turn.parent,
            further=turn.further,
            options=options,
            mode=via.mode,
        )
        limits = self.builder.token_limits(turn.prepared)
        if options:
            limits = {**limits, **options}
        longest = max(limits.values(), default=None)
        return Query(ask, want, fallback, longest, turn.corrects, self._own_models, turn.again)

    def _judged(self, turn: _Turn, settled: Settled) -> Outcome:
        """Turn how a request ended into how the row stands, with what its texts prove of it."""
        outcome = judge(self._reader, settled)
        if not self._evidence or outcome.values is None:
            return outcome
        proof = self._evidence.prove(outcome.values, turn.prepared.sources)
        outcome = outcome._replace(evidence=proof.places)
        if not proof.problems:
            return outcome
        return outcome._replace(
            status="unsupported", error=f"unsupported: {'; '.join(proof.problems)}"[:MOST_SAID]
        )

    def _correction(self, turn: _Turn, settled: Settled) -> list[dict[str, str]]:
        assert isinstance(settled.result, Completion)  # noqa: S101  # only an answer can be invalid
        answer = self._reader.read(settled.result)
        if not answer.problems and answer.values is not None:
            problems = self._evidence.prove(answer.values, turn.prepared.sources).problems
            answer = replace(answer, problems=problems)
        return reask_messages(answer, as_json=self.builder.schema is not None)

    def _longer(self, turn: _Turn) -> tuple[tuple[str, int], ...]:
        """Give the token limit, doubled, when `on_truncated` asks for it."""
        if self.builder.step.on_truncated != "retry":
            return ()
        return tuple((name, 2 * limit) for name, limit in self.builder.token_limits(turn.prepared).items())


def _modes(step: StepConfig, schema: AnswerSchema | None) -> list[str]:
    """Give the ways of telling the schema, from the one that is configured on."""
    if schema is None:
        return [MODES[-1]]
    modes = MODES[MODES.index(step.schema_mode) :]
    return [mode for mode in modes if mode != LOOSE_MODE or not schema.is_strict]
