"""`retry`: what the operator says of rows in doubt is done, and nothing is sent without that word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from enrich.base.loops import run_sync
from enrich.runs.options import RunOptions
from enrich.runs.retry import retry_job
from tests.helpers.endpoint import BookedEndpoint, Raw, Seen, answer_to
from tests.helpers.wire import config_of, read_rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from enrich.config import Config
    from enrich.records import RowStatus

CUT = "two"  # the row whose answer is lost on its way


@pytest.fixture
def endpoint() -> Iterator[BookedEndpoint]:
    """An endpoint that keeps no keys, and whose first answer to one row is cut off."""
    struck: list[str] = []

    def script(seen: Seen) -> Raw | None:
        if seen.method == "POST" and seen.body["messages"][-1]["content"] == CUT and not struck:
            struck.append(seen.key)
            return Raw(b"half of an answer", cut=4)
        return None

    with BookedEndpoint(script=script) as started:
        yield started


@pytest.fixture
def doubtful(tmp_path: Path, endpoint: BookedEndpoint) -> Config:
    """A job that has run, and has left one row of three in doubt."""
    config = config_of(
        tmp_path,
        ["one", CUT, "three"],
        endpoint.base_url,
        endpoint={"idempotent": False},
        retry={"unknown": 0},
    )
    assert [row["s_status"] for row in run(config).rows] == ["ok", "in_doubt", "ok"]
    return config


def statuses_after(
    config: Config, how: Literal["resend", "skip"] | None, retry: frozenset[RowStatus]
) -> list[str]:
    """Retry, and give the status of each row of the output."""
    run_sync(lambda: retry_job(how)(config, RunOptions(retry=retry)))
    return [row["s_status"] for row in read_rows(config)]


def test_without_a_word_it_stays_in_doubt(doubtful: Config, endpoint: BookedEndpoint) -> None:
    """Whatever else is asked again, a row that may have been charged is not."""
    sent = len(endpoint.posts)
    assert statuses_after(doubtful, None, frozenset({"error", "invalid_output"})) == ["ok", "in_doubt", "ok"]
    assert len(endpoint.posts) == sent


def test_resend_asks_it_once_more(doubtful: Config, endpoint: BookedEndpoint) -> None:
    """It goes out under its key and with its body, and is answered; the others are not asked."""
    sent = len(endpoint.posts)
    assert statuses_after(doubtful, "resend", frozenset({"error"})) == ["ok", "ok", "ok"]
    (again,) = endpoint.posts[sent:]
    (first,) = [seen for seen in endpoint.posts[:sent] if seen.raw == again.raw]
    assert again.key == first.key
    assert read_rows(doubtful)[1]["s"] == answer_to(CUT)


def test_skip_gives_it_up(doubtful: Config, endpoint: BookedEndpoint) -> None:
    """Nothing is sent for it, then or ever."""
    sent = len(endpoint.posts)
    assert statuses_after(doubtful, "skip", frozenset({"truncated"})) == ["ok", "skipped", "ok"]
    run(doubtful)
    assert len(endpoint.posts) == sent
