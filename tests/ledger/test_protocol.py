"""One contract for both ledgers: what may be sent, what is kept, what comes into doubt.

It is long because a contract is one list, held by both in the same words.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
import zlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.errors import LedgerError
from enrich.ledger.protocol import ATTEMPTS, DOUBT_AFTER, Ledger, attempt_id, attempt_uuid
from enrich.records import Ask, Failure, Reply
from tests.helpers.ledgers import LOST, REFUSED, REPLY, FakeClock, Open, make_ask

if TYPE_CHECKING:
    from collections.abc import Callable

ASK = make_ask()


async def test_a_new_request_may_be_sent_and_is_known_from_then_on(ledger: Ledger) -> None:
    """A claim gives the first attempt and the body, and makes the intent known."""
    (claim,) = await ledger.claim([ASK])
    assert (claim.verdict, claim.attempt, claim.body, claim.record) == ("mine", 1, ASK.body, None)
    record = (await ledger.lookup([ASK.key]))[ASK.key]
    assert (record.state, record.attempts, record.run, record.in_doubt) == ("sent", 1, 1, False)


async def test_an_answered_request_is_never_sent_again(ledger: Ledger, another: Open) -> None:
    """An answer is final for this run and for every later one, and comes back byte for byte."""
    await ledger.claim([ASK])
    await ledger.answer(ASK.key, REPLY)
    await ledger.close_run({})
    later = await another()
    await later.open_run({})
    for resend in (False, True):
        (claim,) = await later.claim([ASK], resend_failed=resend)
        assert claim.verdict == "done"
        assert claim.record is not None
        assert claim.record.reply == REPLY


async def test_a_second_answer_changes_nothing(ledger: Ledger) -> None:
    """The first answer of a request stands."""
    await ledger.claim([ASK])
    await ledger.answer(ASK.key, REPLY)
    await ledger.answer(ASK.key, replace(REPLY, body=b"other"))
    assert (await ledger.lookup([ASK.key]))[ASK.key].reply == REPLY


async def test_what_a_live_run_is_sending_is_held(ledger: Ledger, another: Open) -> None:
    """Of two runs at once, one sends a request and the other waits for it."""
    other = await another()
    await other.open_run({})
    await ledger.claim([ASK])
    assert [claim.verdict for claim in await other.claim([ASK, make_ask("b")])] == ["held", "mine"]


@pytest.mark.parametrize("end", ["close", "close_run"])
async def test_what_an_ended_run_left_is_taken_over(ledger: Ledger, another: Open, end: str) -> None:
    """A request that was sent by a run that is gone is sent again: same key, same body, next attempt."""
    await ledger.claim([ASK])
    if end == "close_run":
        await ledger.close_run({})
    else:
        await ledger.close()
    later = await another()
    run = await later.open_run({})
    (claim,) = await later.claim([ASK])
    assert (claim.verdict, claim.attempt, claim.body) == ("mine", 2, ASK.body)
    assert (await later.lookup([ASK.key]))[ASK.key].run == run


async def test_this_run_takes_its_own_request_again(ledger: Ledger) -> None:
    """A second claim by the same run is the next attempt."""
    await ledger.claim([ASK])
    assert [(c.verdict, c.attempt) for c in await ledger.claim([ASK])] == [("mine", 2)]


async def test_a_failed_request_is_asked_again_only_on_demand_and_only_in_a_later_run(
    ledger: Ledger, another: Open
) -> None:
    """A final failure stands in its own run; a later run may resend it under the same key."""
    await ledger.claim([ASK])
    await ledger.fail(ASK.key, REFUSED, final=True)
    for resend in (False, True):
        (claim,) = await ledger.claim([ASK], resend_failed=resend)
        assert claim.verdict == "done"
        assert claim.record is not None
        assert (claim.record.state, claim.record.failure) == ("failed", REFUSED)
    await ledger.close_run({})
    later = await another()
    await later.open_run({})
    assert [c.verdict for c in await later.claim([ASK])] == ["done"]
    assert [(c.verdict, c.attempt) for c in await later.claim([ASK], resend_failed=True)] == [("mine", 2)]


@pytest.mark.parametrize(("failure", "verdict"), [(REFUSED, "mine"), (LOST, "in_doubt")])
async def test_an_old_failure_is_resent_only_if_it_cannot_have_been_paid_for(
    ledger: Ledger, another: Open, clock: FakeClock, failure: Failure, verdict: str
) -> None:
    """Once the server has forgotten the key, a request with an unknown attempt is for the operator to decide."""
    await ledger.claim([ASK])
    await ledger.again(ASK.key, failure)
    await ledger.fail(ASK.key, REFUSED, final=True)
    await ledger.close_run({})
    clock.advance(DOUBT_AFTER + 1)
    later = await another()
    await later.open_run({})
    assert [c.verdict for c in await later.claim([ASK], resend_failed=True)] == [verdict]
    record = (await later.lookup([ASK.key]))[ASK.key]
    assert record.in_doubt is (verdict == "in_doubt")


async def test_another_attempt_is_counted_and_its_failure_kept(ledger: Ledger) -> None:
    """A retry takes the next number; the record shows the last failure."""
    await ledger.claim([ASK])
    assert await ledger.again(ASK.key, REFUSED) == 2
    assert await ledger.again(ASK.key, LOST) == 3
    record = (await ledger.lookup([ASK.key]))[ASK.key]
    assert (record.state, record.attempts, record.failure) == ("sent", 3, LOST)


async def test_a_key_that_grew_too_old_is_not_tried_again(ledger: Ledger, clock: FakeClock) -> None:
    """Within one long run as well: past the server's memory there is no next attempt."""
    await ledger.claim([ASK])
    clock.advance(DOUBT_AFTER + 1)
    assert await ledger.again(ASK.key, LOST) is None
    record = (await ledger.lookup([ASK.key]))[ASK.key]
    assert (record.in_doubt, record.attempts, record.failure) == (True, 1, LOST)
    assert [c.verdict for c in await ledger.claim([ASK])] == ["in_doubt"]


@pytest.mark.parametrize("final", [False, True])
async def test_an_unusable_answer_is_taken_back(ledger: Ledger, final: bool) -> None:
    """A rejected answer leaves the request failed or sent; another answer may follow."""
    await ledger.claim([ASK])
    await ledger.answer(ASK.key, REPLY)
    await ledger.reject(ASK.key, LOST, final=final)
    record = (await ledger.lookup([ASK.key]))[ASK.key]
    assert (record.state, record.reply, record.failure) == ("failed" if final else "sent", None, LOST)
    await ledger.answer(ASK.key, REPLY)
    assert (await ledger.lookup([ASK.key]))[ASK.key].reply == REPLY


async def test_withdrawn_claims_were_never_made(ledger: Ledger, another: Open) -> None:
    """A claim of which no byte was sent leaves no trace; what was sent by an earlier run stays."""
    await ledger.claim([ASK])
    await ledger.close_run({})
    later = await another()
    await later.open_run({})
    asks = [ASK, make_ask("b"), make_ask("c")]
    await later.claim(asks)
    await later.answer(asks[2].key, REPLY)
    await later.withdraw([ask.key for ask in asks])
    known = await later.lookup([ask.key for ask in asks])
    assert {key: record.state for key, record in known.items()} == {ASK.key: "sent", asks[2].key: "answered"}


async def test_what_is_not_known_takes_no_room(ledger: Ledger) -> None:
    """Where nothing is found, more and more keys are looked for at once; where answers are large, few at once."""
    keys = [make_ask(f"new {number}").key for number in range(256)]
    left = [len((await ledger.lookup_some(keys))[1]) for _ in range(10)]
    assert left[0] > 0
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    large = make_ask("large")
    await ledger.claim([large])
    await ledger.answer(large.key, Reply(b" " * (8 << 20), None, 1.0))
    await ledger.lookup_some([large.key])
    assert len((await ledger.lookup_some([large.key, *keys]))[1]) > 250


@pytest.mark.parametrize(
    ("failure", "verdict", "next_attempt"),
    [(f, v, n) for f, v in [(REFUSED, "mine"), (LOST, "in_doubt")] for n in (False, True)],
)
async def test_a_withdrawn_request_that_was_only_ever_refused_cannot_come_into_doubt(
    another: Open, clock: FakeClock, failure: Failure, verdict: str, next_attempt: bool
) -> None:
    """A run that stops amid refusals leaves nothing to decide, however late the next one is."""
    ledger = await another()
    await ledger.open_run({})
    await ledger.claim([ASK])
    if next_attempt:
        await ledger.again(ASK.key, failure)
    else:
        await ledger.fail(ASK.key, failure, final=False)
    await ledger.withdraw([ASK.key])
    await ledger.close_run({})
    clock.advance(DOUBT_AFTER + 1)
    later = await another()
    await later.open_run({})
    assert [c.verdict for c in await later.claim([ASK])] == [verdict]


@pytest.mark.parametrize(
    ("seconds", "reboot", "verdict"),
    [
        (DOUBT_AFTER - 1, None, "mine"),
        (DOUBT_AFTER + 1, None, "in_doubt"),
        (DOUBT_AFTER - 1, 0.0, "mine"),
        (DOUBT_AFTER - 10, 20.0, "in_doubt"),
        (100.0, -1_000.0, "in_doubt"),
        (100.0, -130.0, "mine"),
    ],
    ids=["fresh", "old", "reboot", "reboot-old", "reboot-clock-set-back", "reboot-clock-a-little-back"],
)
async def test_a_request_comes_into_doubt_before_the_server_forgets_its_key(
    another: Open, clock: FakeClock, seconds: float, reboot: float | None, verdict: str
) -> None:
    """The key's age decides; over a restart, a wall clock that went backwards is not believed."""
    ledger = await another()
    await ledger.open_run({})
    await ledger.claim([ASK])
    await ledger.close()
    clock.advance(seconds)
    if reboot is not None:
        clock.reboot(reboot)
    later = await another()
    await later.open_run({})
    assert (await later.lookup([ASK.key]))[ASK.key].in_doubt is (verdict == "in_doubt")
    assert [c.verdict for c in await later.claim([ASK])] == [verdict]


@pytest.mark.parametrize("wall", [-DOUBT_AFTER * 2, -5.0, 0.0, DOUBT_AFTER + 1])
async def test_setting_the_wall_clock_does_not_make_a_key_younger(
    ledger: Ledger, another: Open, clock: FakeClock, wall: float
) -> None:
    """While the machine runs, the longer of wall time and boot time counts."""
    await ledger.claim([ASK])
    await ledger.close()
    clock.wall_s += wall
    later = await another()
    assert (await later.lookup([ASK.key]))[ASK.key].in_doubt is (wall > DOUBT_AFTER)
    clock.boot_s += DOUBT_AFTER + 1
    assert (await later.lookup([ASK.key]))[ASK.key].in_doubt


@pytest.mark.parametrize("state", ["sent", "failed"])
async def test_a_damaged_time_makes_no_request_younger(
    another: Open, clock: FakeClock, damage: Callable[[str], None], state: str
) -> None:
    """A request whose time is not the one that was written is in doubt, from then on, until the operator settles it."""
    ledger = await another()
    await ledger.open_run({})
    await ledger.claim([ASK])
    if state == "failed":
        await ledger.fail(ASK.key, LOST, final=True)
    await ledger.close_run({})
    clock.reboot(25 * 3600)
    damage("UPDATE request SET sent_at = sent_at + 32768")
    later = await another()
    await later.open_run({})
    assert (await later.verify()).damaged_requests == (ASK.key,)
    for _ in range(2):
        (claim,) = await later.claim([ASK], resend_failed=True)
        assert claim.verdict == "in_doubt"
        assert (await later.lookup([ASK.key]))[ASK.key].in_doubt
    assert (await later.verify()).sound
    assert await later.settle_doubt([ASK.key], "resend") == 1
    (claim,) = await later.claim([ASK])
    assert (claim.verdict, claim.body) == ("mine", ASK.body)
    assert not (await later.lookup([ASK.key]))[ASK.key].in_doubt
    assert (await later.verify()).sound


async def test_requests_of_an_earlier_release_are_sound(another: Open, damage: Callable[[str], None]) -> None:
    """Where a checksum is over key and body alone, it holds, and the request is sent again as ever."""
    ledger = await another()
    await ledger.open_run({})
    await ledger.claim([ASK])
    await ledger.close_run({})
    damage(f"UPDATE request SET seal = NULL, crc = {zlib.crc32(ASK.body, zlib.crc32(ASK.key))}")  # noqa: S608  # a number
    later = await another()
    await later.open_run({})
    assert (await later.verify()).sound
    (claim,) = await later.claim([ASK])
    assert (claim.verdict, claim.attempt) == ("mine", 2)


@pytest.mark.parametrize("lie", ["state = 1", "state = 2", "state = 3", "attempts = 7", "failure = 12"])
async def test_what_decides_about_a_request_is_believed_under_its_seal_alone(
    another: Open, clock: FakeClock, damage: Callable[[str], None], lie: str
) -> None:
    """Whatever damage makes of an open request, it is sent again while its key is young, and in doubt after that."""
    ledger = await another()
    await ledger.open_run({})
    await ledger.claim([ASK])
    await ledger.close_run({})
    damage(f"UPDATE request SET {lie}")  # noqa: S608  # one of the above
    later = await another()
    assert (await later.verify()).damaged_facts == (ASK.key,)
    record = (await later.lookup([ASK.key]))[ASK.key]
    assert (record.state, record.in_doubt, record.skipped) == ("sent", False, False)
    clock.advance(DOUBT_AFTER + 1)
    await later.open_run({})
    (claim,) = await later.claim([ASK])
    assert claim.verdict == "in_doubt"
    clock.advance(-DOUBT_AFTER)
    (claim,) = await later.claim([ASK])
    assert claim.verdict == "mine"
    assert (await later.verify()).sound


async def test_what_only_helps_is_forgotten_and_what_decides_about_money_is_refused(
    another: Open, damage: Callable[[str], None]
) -> None:
    """A damaged note is as good as none, unless it is vital; a damaged count of `--fresh` never is."""
    ledger = await another()
    await ledger.remember("pace:x", {"rate": 3.0})
    await ledger.generation(b"s" * 16, bump=True)
    damage("UPDATE memory SET value = '{\"rate\": 9.0}'")
    damage("UPDATE generation SET n = 1000000")
    later = await another()
    assert await later.recall("pace:x") is None
    with pytest.raises(LedgerError, match="the note `pace:x` does not match its checksum"):
        await later.recall("pace:x", vital=True)
    for bump in (False, True):
        with pytest.raises(LedgerError, match="decides about what is paid for"):
            await later.generation(b"s" * 16, bump=bump)
    assert len((await later.verify()).problems) >= 2
    await later.remember("pace:x", {"rate": 4.0})
    assert await later.recall("pace:x", vital=True) == {"rate": 4.0}


async def test_the_operator_settles_what_is_in_doubt(ledger: Ledger, another: Open, clock: FakeClock) -> None:
    """`skip` gives a request up, `resend` sends it as if it were new; either can follow the other's lead."""
    asks = [make_ask("a"), make_ask("b"), make_ask("c")]
    await ledger.claim(asks[:2])
    await ledger.close()
    clock.advance(DOUBT_AFTER + 1)
    later = await another()
    await later.open_run({})
    await later.claim(asks[2:])
    keys = [ask.key for ask in asks]
    assert await later.settle_doubt(keys, "skip") == 2
    assert [c.verdict for c in await later.claim(asks[:2])] == ["in_doubt", "in_doubt"]
    assert (await later.lookup(keys))[keys[0]].skipped
    assert await later.settle_doubt(keys[:1], "resend") == 1
    assert not (await later.lookup(keys))[keys[0]].in_doubt
    assert [(c.verdict, c.attempt) for c in await later.claim(asks[:1])] == [("mine", 2)]
    record = (await later.lookup(keys))[keys[0]]
    assert (record.sent_at, record.in_doubt, record.skipped) == (clock.wall_s, False, False)


async def test_what_a_live_run_holds_is_not_settled(ledger: Ledger, another: Open, clock: FakeClock) -> None:
    """The run that holds a request decides on it, however old it is."""
    await ledger.claim([ASK])
    clock.advance(DOUBT_AFTER + 1)
    other = await another()
    assert await other.settle_doubt([ASK.key], "resend") == 0


async def test_answers_are_found_by_their_question(ledger: Ledger) -> None:
    """Only answered requests, oldest first, per question."""
    q1, q2 = b"1" * 16, b"2" * 16
    asks = [make_ask(str(n), question=q) for n, q in enumerate([q1, q2, q1, q1, None])]
    await ledger.claim(asks)
    for ask in (asks[2], asks[0], asks[4]):
        await ledger.answer(ask.key, REPLY)
    found = await ledger.lookup_question([q1, q2])
    assert {q: [r.key for r in records] for q, records in found.items()} == {q1: [asks[0].key, asks[2].key]}


async def test_parents_and_models_are_kept(ledger: Ledger) -> None:
    """A record names its model and the request it follows."""
    ask = make_ask(model="modèle-1", parent=b"p" * 16)
    await ledger.claim([ask])
    record = (await ledger.lookup([ask.key]))[ask.key]
    assert (record.model, record.parent) == ("modèle-1", b"p" * 16)


async def test_long_lists_are_looked_up_whole(ledger: Ledger) -> None:
    """Any number of keys can be claimed and looked up at once; unknown ones are absent."""
    asks = [make_ask(str(n)) for n in range(1_300)]
    assert {c.verdict for c in await ledger.claim(asks)} == {"mine"}
    found = await ledger.lookup([*[ask.key for ask in asks], b"?" * 16])
    assert sorted(found) == sorted(ask.key for ask in asks)
    assert await ledger.lookup([]) == {}


async def test_totals_are_what_a_scan_adds_up_to(ledger: Ledger) -> None:
    """Requests per state, attempts, tokens and credits; what the database cannot read is named for others to read."""
    usage = [
        {"prompt_tokens": 3, "total_tokens": 5, "credits": 0.5},
        {"total_tokens": "many", "credits": -1},
        None,
    ]
    asks = [make_ask(f"{number}") for number in range(9)]
    await ledger.claim(asks)
    for ask, said in zip(asks, usage, strict=False):
        await ledger.answer(ask.key, Reply(json.dumps({"usage": said}).encode(), None, 1.0))
    await ledger.answer(asks[3].key, Reply(b"data: {}\n\n", None, 1.0, streamed=True))
    await ledger.answer(asks[4].key, Reply(b"{", None, 1.0))
    await ledger.fail(asks[5].key, REFUSED, final=True)
    await ledger.again(asks[6].key, LOST)
    totals = await ledger.totals()
    standings: Counter[str] = Counter()
    attempts = 0
    async for entries in ledger.scan():
        standings.update(entry.record.standing for entry in entries)
        attempts += sum(entry.record.attempts for entry in entries)
    found = {"answered": totals.answered, "failed": totals.failed, "sent": totals.sent}
    assert (found, totals.attempts) == (standings, attempts)
    read = [reply async for replies in ledger.replies(totals.unread) for reply in replies.values()]
    if totals.tokens != (0, 0, 0):  # a database that reads JSON
        assert (totals.tokens, totals.credits) == ((3, 0, 5), 0.5)
        assert sorted(reply.streamed for reply in read) == [False, True]
    else:
        assert len(read) == 5
    listed = [line async for lines, _ in ledger.listing(["failed"]) for line in lines]
    assert [(line.key, line.standing, line.error) for line in listed] == [
        (asks[5].key, "failed", str(REFUSED))
    ]
    ((lines, unread),) = [found async for found in ledger.listing(["answered"])]
    assert [(line.tokens, line.credits) for line in lines] == [(5, 0.5)] + [(None, None)] * 4
    assert {lines[place].key for place in unread} >= {asks[3].key}


async def test_small_things_are_remembered(ledger: Ledger, another: Open) -> None:
    """Generations count up per step; a remembered value is replaced; both outlive the run."""
    assert await ledger.generation(b"s" * 16) == 0
    assert await ledger.generation(b"s" * 16, bump=True) == 1
    assert await ledger.generation(b"s" * 16, bump=True) == 2
    assert await ledger.recall("rate") is None
    await ledger.remember("rate", {"rps": 1})
    await ledger.remember("rate", {"rps": 2.5})
    other = await another()
    assert await other.generation(b"s" * 16) == 2
    assert await other.recall("rate") == {"rps": 2.5}


async def test_the_last_run_that_ended_is_known(ledger: Ledger, another: Open, clock: FakeClock) -> None:
    """Runs have numbers of their own; one that never ended is not the last."""
    assert await ledger.last_run() is None
    started = clock.wall_s
    clock.advance(5)
    other = await another()
    assert await other.open_run({}) == 2
    await ledger.close_run({"rows": 3})
    last = await other.last_run()
    assert last is not None
    assert (last.number, last.started_at, last.ended_at, last.summary) == (
        1,
        started,
        clock.wall_s,
        {"rows": 3},
    )


async def test_a_write_survives_the_cancellation_of_who_waits_for_it(ledger: Ledger) -> None:
    """An answer that was handed over is kept, whatever happens to the task."""
    await ledger.claim([ASK])
    task = asyncio.create_task(ledger.answer(ASK.key, REPLY))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ledger.remember("after", {})
    assert (await ledger.lookup([ASK.key]))[ASK.key].reply == REPLY


async def test_an_attempts_request_id_is_a_uuid_of_key_and_number() -> None:
    """Anybody can compute the id of an attempt from the key and the attempt's number."""
    key = bytes(range(16))
    name = ATTEMPTS + key + (3).to_bytes(4, "big")
    expected = uuid.UUID(bytes=hashlib.sha1(name, usedforsecurity=False).digest()[:16], version=5)
    assert attempt_id(key, 3) == str(expected)
    assert attempt_uuid(key, 3) == expected.bytes


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)  # no lone surrogates


any_reply = st.builds(
    Reply, st.binary(), st.none() | texts, st.floats(0, 1e9), st.none() | st.floats(0, 1e9), st.booleans()
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exchanges=st.lists(st.tuples(st.binary(), any_reply), min_size=1, max_size=8))
async def test_any_bytes_come_back_as_they_went_in(
    another: Open, exchanges: list[tuple[bytes, Reply]]
) -> None:
    """Requests and replies are bytes to the ledger: every one of them round-trips."""
    ledger = await another()
    await ledger.open_run({})
    asks = [Ask(uuid.uuid4().bytes, body, "auto") for body, _ in exchanges]
    replies = [reply for _, reply in exchanges]
    await ledger.claim(asks)
    assert [c.body for c in await ledger.claim(asks)] == [ask.body for ask in asks]
    await asyncio.gather(*(ledger.answer(a.key, r) for a, r in zip(asks, replies, strict=True)))
    found = await ledger.lookup([ask.key for ask in asks])
    assert [found[ask.key].reply for ask in asks] == replies
    await ledger.close()


async def test_a_stray_byte_in_a_header_is_kept_escaped(ledger: Ledger) -> None:
    """A response id that is no UTF-8 does not keep the answer from being stored."""
    await ledger.claim([ASK])
    await ledger.answer(ASK.key, replace(REPLY, request_id="req-\udcff\0"))
    reply = (await ledger.lookup([ASK.key]))[ASK.key].reply
    assert reply is not None
    assert (reply.body, reply.request_id) == (REPLY.body, "req-\\udcff\\x00")


async def test_the_newest_requests(ledger: Ledger) -> None:
    """Those with an answer and those that failed come newest first, whole, and without those that are known."""
    asks = [make_ask(str(number)) for number in range(6)]
    for ask in asks:
        await ledger.claim([ask])
    for ask in asks[:3]:
        await ledger.answer(ask.key, REPLY)
    await ledger.fail(asks[4].key, REFUSED, final=True)
    newest = await ledger.newest(2)
    assert [entry.ask.key for entry in newest] == [asks[2].key, asks[1].key]
    assert newest[0].ask.body == asks[2].body
    assert newest[0].record.reply == REPLY
    assert [e.ask.key for e in await ledger.newest(2, known={newest[0].line})] == [asks[1].key]
    (failed,) = await ledger.newest(5, failed=True)
    assert (failed.ask.key, failed.record.failure) == (asks[4].key, REFUSED)
