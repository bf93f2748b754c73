"""Which line of a provider's bill is about which request of a ledger."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from enrich.ledger.protocol import attempt_id
from enrich.records import key_text
from enrich.verbs.bill import AMOUNTS
from enrich.wire.completion import completion_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from enrich.ledger.protocol import Entry
    from enrich.verbs.bill import Charge

MOST_ATTEMPTS = 100  # of a request, whose ids are looked for
TOKENS = AMOUNTS[:3]
_ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,200})"')

Found = dict[int, tuple["Known", str]]  # by the line's number: its request, and what it was matched by


@dataclass(slots=True, eq=False)
class Known:
    """One request, as the ledger knows it.

    Attributes:
        ids: by which the provider may name it: of its responses, its attempts, its completion.
        answered: whether there is an answer that was paid for.
        at: when it was answered, or sent, in wall-clock seconds since the epoch.
        taken: whether a line of the bill is its own.
    """

    key: str
    ids: tuple[str, ...]
    request_id: str | None
    answered: bool
    standing: str
    model: str
    at: float
    amounts: dict[str, float]
    taken: bool = False


def known_request(entry: Entry) -> Known:
    """Read what the ledger knows of a request."""
    record, reply = entry.record, entry.record.reply
    completion = completion_of(record)
    ids = [reply.request_id, _completion_id(reply.body, streamed=reply.streamed)] if reply is not None else []
    ids += [attempt.failure.request_id for attempt in entry.failures]
    ids += [attempt_id(record.key, number) for number in range(1, min(record.attempts, MOST_ATTEMPTS) + 1)]
    usage = completion.usage if completion is not None else None
    named = {name: getattr(usage, name) for name in AMOUNTS} if usage is not None else {}
    return Known(
        key_text(record.key),
        tuple(_bare(one) for one in ids if one),
        reply.request_id if reply is not None else None,
        completion is not None and b'"imported":{"from":' not in (reply.body if reply is not None else b""),
        record.standing,
        (completion.model if completion is not None else None) or record.model,
        entry.received_at if entry.received_at is not None else record.sent_at,
        {name: float(amount) for name, amount in named.items() if amount is not None},
    )


def _completion_id(body: bytes, *, streamed: bool) -> str | None:
    if streamed:
        match = _ID.search(body[:4_096])
        return match[1].decode(errors="replace") if match else None
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    found = said.get("id") if isinstance(said, dict) else None
    return found if isinstance(found, str) else None


def _bare(name: str) -> str:
    """Give an id as it is compared: uuids are written in many ways."""
    return name.strip().replace("-", "").lower()


def match(charges: list[Charge], known: list[Known], within: float) -> tuple[Found, dict[int, Known]]:
    """Match the lines of a bill with requests: by the response's id, else by the key, else by time, model and tokens.

    The last is for lines that no id speaks against: one that has an id of a kind by which others were found is about
    another request, or none here.

    Args:
        charges: the lines.
        known: the requests; those that are matched are marked as taken.
        within: seconds by which both sides' times may differ.

    Returns:
        The lines that were matched; and, of those that were not, whose request another line has already.
    """
    found: Found = {}
    twins: dict[int, Known] = {}
    told = []
    for name, index in (("request_id", _by_id(known)), ("key", {_bare(one.key): one for one in known})):
        before = len(found)
        for charge in charges:
            text = getattr(charge, name)
            one = index.get(_bare(text)) if text is not None and charge.line not in found else None
            if one is not None and not one.taken:
                one.taken = True
                found[charge.line] = one, name
                twins.pop(charge.line, None)
            elif one is not None:
                twins.setdefault(charge.line, one)
        told += [name] if len(found) > before else []
    left = [charge for charge in charges if charge.line not in found and charge.line not in twins]
    silent = [charge for charge in left if all(getattr(charge, name) is None for name in told)]
    for charge, one in _alike(silent, known, within):
        one.taken = True
        found[charge.line] = one, "likeness"
    return found, twins


def _by_id(known: list[Known]) -> dict[str, Known]:
    """Index requests by the ids that name them; what would name two names none."""
    index: dict[str, Known] = {}
    twice: set[str] = set()
    for one in known:
        for name in one.ids:
            if index.setdefault(name, one) is not one:
                twice.add(name)
    return {name: one for name, one in index.items() if name not in twice}


def _alike(charges: list[Charge], known: list[Known], within: float) -> Iterator[tuple[Charge, Known]]:
    """Pair lines with answers of the same model and tokens, both in the order of time; as many as can be."""
    lines: dict[tuple[tuple[str, ...], bool], list[Charge]] = defaultdict(list)
    for charge in charges:
        names = tuple(name for name in TOKENS if name in charge.amounts)
        if charge.at is not None and names:
            lines[names, charge.model is not None].append(charge)
    # Those that name their model choose first: they fit fewer.
    for (names, by_model), group in sorted(
        lines.items(), key=lambda item: (not item[0][1], -len(item[0][0]))
    ):

        def likeness(
            one: Charge | Known,
            names: tuple[str, ...] = names,
            by_model: bool = by_model,  # noqa: FBT001  # bound to the loop
        ) -> tuple[Any, ...]:
            return (one.model if by_model else None, *(one.amounts.get(name) for name in names))

        yield from _paired(group, [one for one in known if one.answered and not one.taken], likeness, within)


def _paired(
    charges: list[Charge],
    known: list[Known],
    likeness: Callable[[Charge | Known], tuple[Any, ...]],
    within: float,
) -> Iterator[tuple[Charge, Known]]:
    """Pair what is alike: each line, by its time, takes the first answer left that lies near enough."""
    answers: dict[tuple[Any, ...], list[Known]] = defaultdict(list)
    for one in sorted(known, key=lambda one: -one.at):
        answers[likeness(one)].append(one)  # the earliest last
    for charge in sorted(charges, key=lambda charge: charge.at or 0.0):
        at, left = charge.at or 0.0, answers[likeness(charge)]
        while left and left[-1].at < at - within:
            left.pop()
        if left and left[-1].at <= at + within:
            yield charge, left.pop()
