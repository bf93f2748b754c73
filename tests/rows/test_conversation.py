"""One row's talk with a model: answers that hold, that do not, and what is asked next.

It is long because it is a table of cases, most of them a line or two.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.answer.reader import AnswerReader
from enrich.config import StepConfig
from enrich.engine.fallback import ModelBreaker
from enrich.prompt.request import RequestBuilder
from enrich.records import Completion, Failure, Fate, Outcome, Settled, Usage
from enrich.rows.conversation import Conversation, Query, QueryResult, Talk
from enrich.schema.schema import load_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from enrich.records import Ask, RowStatus

SCHEMA = load_schema({"properties": {"n": {"type": "integer"}}, "required": ["n"]})
SCHEMA_LINE = "Answer with one JSON object"  # how the system message that tells of the schema begins
STEP = {"name": "s", "prompt": "{{ t }}", "model": "a"}
GOOD = '{"n": 1}'
BAD = '{"n": "one"}'
NO_FORMAT = Failure(
    "unsupported_option", "Not supported: response_format.", Fate.REFUSED, status=422, retryable=False
)
UNAVAILABLE = Failure("model_unavailable", "busy", Fate.REFUSED, status=503, retryable=True)
Served = Completion | Failure


def text(content: str | None, finish_reason: str = "stop", **more: Any) -> Completion:
    """A completion."""
    return Completion(content, "m", finish_reason, Usage(1, 1, 2, 1.0), **more)


@dataclass
class Known:
    """What the ledger below keeps of one request."""

    ask: Ask
    result: Served | None
    run: int


@dataclass
class World:
    """A ledger and a server, as a flow would ask them; the server executes each key once and charges for it.

    Attributes:
        serve: answers a body.
        charged: the bodies of the completions, in order.
    """

    serve: Callable[[dict[str, Any]], Served]
    known: dict[bytes, Known] = field(default_factory=dict)
    executed: dict[bytes, Completion] = field(default_factory=dict)
    charged: list[dict[str, Any]] = field(default_factory=list)
    run: int = 1
    strayed: bool = False

    def conversation(
        self, *, schema: Any = SCHEMA, retry: frozenset[RowStatus] = frozenset(), **step: Any
    ) -> Conversation:
        """Begin a run: conversations that know nothing but what the ledger does."""
        config = StepConfig.model_validate({**STEP, **step})
        builder = RequestBuilder(config, "http://x", schema)
        reader = AnswerReader(config, schema)
        strayed = self.strayed or bool(retry)
        return Conversation(builder, reader, ModelBreaker(), strayed=strayed, retry=retry)

    def hold(self, conversation: Conversation, row: str = "x", ordinal: int = 0) -> Outcome:
        """Hold one row's conversation to its end."""
        talk = conversation.hold(conversation.builder.prepare({"t": row}), ordinal)
        query = next(talk)
        while True:
            try:
                query = talk.send(self.reply(conversation, query))
            except StopIteration as ended:
                verdict: Outcome = ended.value
                return verdict

    def reply(self, conversation: Conversation, query: Query) -> QueryResult:
        """Answer a query at once."""
        told, waits = self.ledger(query)
        if not waits:
            return told
        self.claim(conversation, query)
        return self.land(query.ask)

    def ledger(self, query: Query) -> tuple[QueryResult, bool]:
        """Say what the ledger knows, and whether the request must be sent."""
        if query.want == "earlier":
            mine = [k for k in self.known.values() if k.ask.question == query.ask.question]
            return [self._settled(k) for k in mine if isinstance(k.result, Completion)], False
        known = self.known.get(query.ask.key)
        if known is None:
            return None, query.want == "answer"
        if query.want == "known":
            return self._settled(known), False
        again = isinstance(known.result, Failure) and known.result.retryable and known.run != self.run
        return self._settled(known), known.result is None or bool(again)

    def claim(self, conversation: Conversation, query: Query) -> None:
        """Make the intent durable, and the note that rows have strayed."""
        self.strayed = self.strayed or conversation.strayed
        self.known[query.ask.key] = Known(query.ask, None, self.run)

    def land(self, ask: Ask) -> Settled:
        """Have the server answer, and keep that."""
        result = self.execute(ask)
        self.known[ask.key].result = result
        return Settled(ask.key, result, fresh=True, parent=ask.parent)

    def execute(self, ask: Ask) -> Served:
        """Have the server answer, whether or not anybody hears it."""
        if ask.key in self.executed:
            return self.executed[ask.key]
        body = json.loads(ask.body)
        result = self.serve(body)
        if isinstance(result, Completion):
            self.executed[ask.key] = result
            self.charged.append(body)
        return result

    def _settled(self, known: Known) -> Settled:
        result = known.result or Failure("in_doubt", "no answer was kept", Fate.UNKNOWN)
        return Settled(
            known.ask.key,
            result,
            open=known.result is None,
            fresh=known.run == self.run,
            parent=known.ask.parent,
        )

    def models(self) -> list[str]:
        """The models that were charged, in order."""
        return [body["model"] for body in self.charged]


def serve(*results: Served) -> Callable[[dict[str, Any]], Served]:
    """Give these answers in turn."""
    left = list(results)
    return lambda _: left.pop(0)


def by_mode(body: dict[str, Any]) -> str:
    """Say how a body tells of the schema."""
    return str(body.get("response_format", {}).get("type", "prompt"))


# --- asking again ---------------------------------------------------------------------------------------


def test_reask_in_the_same_conversation() -> None:
    """Each re-ask holds all bad answers and what was wrong with them, under a key of its own, after its parent."""
    world = World(serve(text(BAD), text("no"), text(GOOD)))
    verdict = world.hold(world.conversation(reask=2))
    assert (verdict.status, verdict.values) == ("ok", {"n": 1})
    first, second, third = (body["messages"] for body in world.charged)
    assert second[: len(first)] == first
    assert third[: len(second)] == second
    assert [m["role"] for m in third] == ["user", "assistant", "user", "assistant", "user"]
    assert [m["content"] for m in third if m["role"] == "assistant"] == [BAD, "no"]
    assert '/n: "one" is not of type "integer"' in second[-1]["content"]
    asks = [known.ask for known in world.known.values()]
    assert len({ask.key for ask in asks}) == 3
    assert [ask.parent for ask in asks] == [None, asks[0].key, asks[1].key]
    assert verdict.key == asks[2].key


def test_still_wrong() -> None:
    """After the last re-ask the row is invalid, with the last answer's text."""
    world = World(serve(text(BAD), text("no")))
    verdict = world.hold(world.conversation())
    assert (verdict.status, verdict.text, verdict.values) == ("invalid_output", "no", None)
    assert world.hold(world.conversation()) == verdict
    assert len(world.charged) == 2


def test_no_reask() -> None:
    """With `reask: 0`, without a text or with an empty one, or when filtered, nothing is asked again."""
    cases: tuple[tuple[Served, dict[str, Any], int], ...] = (
        (text(BAD), {"reask": 0}, 1),
        (text(None), {}, 1),
        (text("x", "content_filter"), {}, 1),
        (text("x", "length"), {}, 1),
        (text(""), {}, 1),
    )
    for first, step, charges in cases:
        world = World(serve(first, text(GOOD)))
        world.hold(world.conversation(**step))
        assert len(world.charged) == charges


def test_twice_the_tokens_once() -> None:
    """`on_truncated: retry` doubles the limit, once, and re-asks keep the double."""
    world = World(serve(text("{", "length"), text(BAD), text("{", "length")))
    verdict = world.hold(world.conversation(on_truncated="retry", max_tokens=10))
    assert verdict.status == "truncated"
    assert [body["max_tokens"] for body in world.charged] == [10, 20, 20]
    assert len(world.charged[2]["messages"]) == 3


def test_token_limit_in_params() -> None:
    """A limit among `params`, or rendered for the row, is doubled just so."""
    world = World(serve(text("{", "length"), text(GOOD)))
    world.hold(
        world.conversation(on_truncated="retry", params={"max_completion_tokens": "{{ t | length * 8 }}"}),
        "four",
    )
    assert [body["max_completion_tokens"] for body in world.charged] == [32, 64]


# --- another mode, another model ------------------------------------------------------------------------


@pytest.mark.parametrize("takes", ["json_object", "prompt"])
def test_plainer_modes(takes: str) -> None:
    """A refused `response_format` leads to a plainer one, at once for the rows that follow."""
    refused: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> Served:
        if by_mode(body) not in (takes, "prompt"):
            refused[by_mode(body)] += 1
            return NO_FORMAT
        return text(GOOD)

    world = World(answer)
    conversation = world.conversation()
    assert [world.hold(conversation, row).status for row in "xyz"] == ["ok"] * 3
    assert set(refused.values()) == {1}
    assert [by_mode(body) for body in world.charged] == [takes] * 3
    assert all(SCHEMA_LINE in body["messages"][0]["content"] for body in world.charged)
    world.run += 1
    resumed = world.conversation()
    assert [world.hold(resumed, row).status for row in "xyz"] == ["ok"] * 3
    assert (len(world.charged), set(refused.values())) == (3, {1})


def test_rows_that_were_refused_together() -> None:
    """Rows in flight while others find the next mode refused too all reach the last one."""
    world = World(lambda body: text(GOOD) if by_mode(body) == "prompt" else NO_FORMAT)
    conversation = world.conversation()
    early = conversation.hold(conversation.builder.prepare({"t": "early"}), 0)
    query = next(early)
    while query.want != "answer":
        query = early.send(world.reply(conversation, query))
    assert world.hold(conversation, "late").status == "ok"
    status = None
    while status is None:
        try:
            query = early.send(world.reply(conversation, query))
        except StopIteration as ended:
            status = ended.value.status
    assert status == "ok"


def test_another_option_is_no_mode() -> None:
    """An unsupported option other than `response_format` fails the row."""
    world = World(lambda _: replace(NO_FORMAT, message="Not supported: seed."))
    assert world.hold(world.conversation()).status == "error"
    assert len(world.known) == 1


def test_modes_are_left_per_model() -> None:
    """What one model refuses is still asked of the others."""
    world = World(
        lambda body: NO_FORMAT if body["model"] == "b" and by_mode(body) == "json_schema" else text(GOOD)
    )
    conversation = world.conversation(fallback_models=["b"])
    down = World(lambda body: UNAVAILABLE if body["model"] == "a" else world.serve(body))
    assert down.hold(conversation).status == "ok"
    assert [(body["model"], by_mode(body)) for body in down.charged] == [("b", "json_object")]
    conversation = world.conversation(fallback_models=["b"])
    world.hold(conversation, "y")
    assert [(body["model"], by_mode(body)) for body in world.charged] == [("a", "json_schema")]


def test_fallback_in_a_reask() -> None:
    """A model that is gone by the time of the re-ask hands the conversation to the next one."""
    world = World(serve(text(BAD), UNAVAILABLE, text(GOOD)))
    assert world.hold(world.conversation(fallback_models=["b"])).status == "ok"
    assert world.models() == ["a", "b"]
    assert len(world.charged[1]["messages"]) == 3


def test_what_is_in_doubt_goes_no_further() -> None:
    """A request that may be paid for is not asked in another way."""
    world = World(serve(UNAVAILABLE))
    conversation = world.conversation(fallback_models=["b"])
    talk = conversation.hold(conversation.builder.prepare({"t": "x"}), 0)
    query = next(talk)
    while query.want != "answer":
        query = talk.send(world.ledger(query)[0])
    with pytest.raises(StopIteration) as ended:
        talk.send(Settled(query.ask.key, UNAVAILABLE, in_doubt=True))
    assert ended.value.value.status == "in_doubt"


def test_a_model_that_another_step_found_missing() -> None:
    """An answer by the first model is found, though it is known to be out of service by now."""
    world = World(lambda _: text("fine"))
    conversation = world.conversation(schema=None, fallback_models=["b"])
    world.hold(conversation)
    conversation._breaker.unavailable("a")
    world.hold(conversation)
    assert world.models() == ["a"]


# --- answers that serve again ---------------------------------------------------------------------------


def test_another_schema() -> None:
    """Under another schema, with `reuse`, stored answers serve where they fit, re-asked ones too; the rest is asked."""
    world = World(
        lambda body: text(GOOD if len(body["messages"]) > 1 or body["messages"][0]["content"] == "x" else BAD)
    )
    conversation = world.conversation()
    assert [world.hold(conversation, row).status for row in "xy"] == ["ok", "ok"]
    assert len(world.charged) == 3
    looser = load_schema({"properties": {"n": {"type": ["integer", "string"]}}, "required": ["n"]})
    for mode in ("json_schema", "json_object", "prompt"):
        again = world.conversation(schema=looser, schema_mode=mode, reuse=True)
        assert [world.hold(again, row).status for row in "xy"] == ["ok", "ok"]
    assert len(world.charged) == 3
    other = load_schema({"properties": {"m": {"type": "integer"}}, "required": ["m"]})
    world.hold(world.conversation(schema=other, reask=0, reuse=True))
    assert len(world.charged) == 4


def test_fewer_reasks() -> None:
    """An answer to a re-ask still serves when no re-asks are allowed any more."""
    world = World(serve(text(BAD), text(GOOD)))
    first = world.hold(world.conversation())
    assert world.hold(world.conversation(reask=0)) == first


def test_another_rule() -> None:
    """A changed rule reads the stored answers again and asks only about what it rejects."""
    world = World(serve(text('{"n": 1}'), text('{"n": 7}'), text('{"n": 8}')))
    conversation = world.conversation(check="n < 10")
    assert [world.hold(conversation, row).status for row in "xy"] == ["ok", "ok"]
    stricter = world.conversation(check="n > 5")
    assert [world.hold(stricter, row).values for row in "xy"] == [{"n": 8}, {"n": 7}]
    assert len(world.charged) == 3


def test_a_fallback_models_answer_serves_another_schema() -> None:
    """Whichever model answered: under another schema its answer serves where that is wanted."""
    world = World(lambda body: UNAVAILABLE if body["model"] == "a" else text(GOOD))
    world.hold(world.conversation(fallback_models=["b"]))
    other = load_schema({"properties": {"n": {"type": "number"}}})
    assert world.hold(world.conversation(schema=other, reuse=True)).values == {"n": 1.0}
    assert len(world.charged) == 1


# --- rounds that `retry` adds ---------------------------------------------------------------------------


RETRY: frozenset[RowStatus] = frozenset({"invalid_output"})


def test_a_round_more() -> None:
    """`retry` asks once more under a key of its own; equal rows share that; later runs find it."""
    world = World(serve(text(BAD), text(BAD), text(BAD), text(GOOD)))
    assert world.hold(world.conversation(reask=0)).status == "invalid_output"
    world.run += 1
    retried = world.conversation(reask=0, retry=RETRY)
    world.strayed = True
    assert [world.hold(retried).status for _ in range(3)] == ["invalid_output"] * 3
    assert len(world.charged) == 2
    world.run += 1
    assert world.hold(world.conversation(reask=0, retry=RETRY)).status == "invalid_output"
    world.run += 1
    assert world.hold(world.conversation(reask=0, retry=RETRY)).status == "ok"
    world.run += 1
    assert world.hold(world.conversation(reask=0)).status == "ok"
    assert len(world.charged) == 4


def test_a_round_in_another_mode() -> None:
    """A round that was answered in another mode is found too."""
    answers = [text(BAD), text("x", "length"), text(GOOD)]
    world = World(lambda body: NO_FORMAT if by_mode(body) == "json_schema" else answers.pop(0))
    world.hold(world.conversation(reask=0))
    world.strayed = True
    for status in ("truncated", "ok"):
        world.run += 1
        retry: frozenset[RowStatus] = frozenset({"invalid_output", "truncated"})
        assert world.hold(world.conversation(reask=0, retry=retry)).status == status
    assert world.hold(world.conversation(reask=0)).status == "ok"
    assert not answers


# --- the same turns, whatever happens -------------------------------------------------------------------


def _turn(body: dict[str, Any]) -> str:
    """What a body asks, apart from the model and the mode."""
    rest = {k: v for k, v in body.items() if k not in ("model", "response_format")}
    rest["messages"] = [m for m in body["messages"] if not m["content"].startswith(SCHEMA_LINE)]
    return json.dumps(rest, sort_keys=True)


class Run:
    """Some rows in conversation, interleaved by chance, up to their end or a kill."""

    def __init__(self, world: World, rows: list[str], chance: random.Random, **step: Any) -> None:
        self.world = world
        self.chance = chance
        self.verdicts: dict[int, Outcome] = {}
        self.conversation = world.conversation(**step)
        self.flying: dict[bytes, tuple[Ask, list[int]]] = {}
        self.talks: dict[int, Talk] = {}
        self.asking: dict[int, Query] = {}
        for number, row in enumerate(rows):
            talk = self.conversation.hold(self.conversation.builder.prepare({"t": row}), 0)
            self.talks[number] = talk
        self.new = list(self.talks)

    def go(self, steps: int | None = None) -> bool:
        """Take so many steps, or all; gives whether everything is done."""
        while steps is None or steps > 0:
            moves = [*(("tell", n) for n in self.asking), *(("land", key) for key in self.flying)]
            moves += [("start", number) for number in self.new[:1]]
            if not moves:
                return True
            self._move(*self.chance.choice(moves))
            steps = steps and steps - 1
        return False

    def kill(self) -> None:
        """Forget everything but the ledger; the server may have executed what was in flight."""
        for ask, _ in self.flying.values():
            if self.chance.random() < 0.5:
                self.world.execute(ask)
        self.world.run += 1

    def _move(self, what: str, which: Any) -> None:
        if what == "start":
            self.new.remove(which)
            self._send(which, None)
        elif what == "tell":
            self._tell(which)
        else:
            ask, numbers = self.flying.pop(which)
            settled = self.world.land(ask)
            for number in numbers:
                self._send(number, settled)

    def _tell(self, number: int) -> None:
        query = self.asking.pop(number)
        told, waits = self.world.ledger(query)
        if not waits:
            self._send(number, told)
            return
        if query.ask.key not in self.flying:
            self.world.claim(self.conversation, query)
            self.flying[query.ask.key] = (query.ask, [])
        self.flying[query.ask.key][1].append(number)

    def _send(self, number: int, reply: QueryResult) -> None:
        try:
            self.asking[number] = self.talks[number].send(reply)
        except StopIteration as ended:
            self.verdicts[number] = ended.value


def _moody(seed: int, formats: list[str], mood: random.Random) -> Callable[[dict[str, Any]], Served]:
    """A server whose answers are a function of the turn, but whose models come and go."""

    def answer(body: dict[str, Any]) -> Served:
        if by_mode(body) not in formats:
            return NO_FORMAT
        if body["model"] != "c" and mood.random() < 0.3:
            return UNAVAILABLE
        draw = random.Random(f"{seed}{_turn(body)}").random()
        if draw < 0.3:
            return text(BAD)
        return text("{", "length") if draw < 0.5 else text(GOOD)

    return answer


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32),
    formats=st.sampled_from(
        [["json_schema", "json_object", "prompt"], ["json_object", "prompt"], ["prompt"]]
    ),
    rows=st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=6, unique=True),
    kills=st.lists(st.integers(1, 60), max_size=4),
)
def test_each_turn_is_paid_for_once(seed: int, formats: list[str], rows: list[str], kills: list[int]) -> None:
    """Killed wherever, with models that come and go and modes refused: no turn of a row is paid for twice.

    And rows end as if nothing had happened.
    """
    chance = random.Random(seed)
    step = {"reask": 2, "fallback_models": ["b", "c"], "on_truncated": "retry", "max_tokens": 8}
    world = World(_moody(seed, formats, chance))
    for steps in kills:
        run = Run(world, rows, chance, **step)
        if not run.go(steps):
            run.kill()
    last = Run(world, rows, chance, **step)
    assert last.go()
    assert max(Counter(map(_turn, world.charged)).values()) == 1
    calm = World(_moody(seed, formats, random.Random()))
    calm.serve = _moody(seed, ["json_schema"], _Calm())
    undisturbed = Run(calm, rows, chance, **step)
    assert undisturbed.go()
    for number, verdict in last.verdicts.items():
        expected = undisturbed.verdicts[number]
        assert (verdict.status, verdict.text, verdict.values) == (
            expected.status,
            expected.text,
            expected.values,
        )
    assert {_turn(body) for body in world.charged} == {_turn(body) for body in calm.charged}


class _Calm(random.Random):
    """No model is ever unavailable."""

    def random(self) -> float:
        return 1.0
