"""Answers that were paid for elsewhere are taken into a ledger: checked, marked, at no cost, and asked for no more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.endpoint import BookedEndpoint, answer_to

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

ROWS = [{"t": f"text {n}"} for n in range(12)]
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["pos", "neg"]}}, "required": ["label"]}


def imported(ended: Ended) -> dict[str, Any]:
    """Read what `--json` says."""
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


@pytest.mark.parametrize("streamed", [False, True])
def test_of_another_ledger(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    tmp_path: Path,
    streamed: bool,
) -> None:
    """What one ledger exports serves another: nothing is asked that is there, the cost here is nothing, the rows are the same."""
    config = job(ROWS[:8], ledger="one.db", step={"stream": streamed})
    if streamed:
        from tests.helpers.endpoint import Raw, Seen

        def stream(seen: Seen) -> Raw | None:
            if seen.method != "POST":
                return None
            text = answer_to(seen.body["messages"][0]["content"])
            events = [
                {"model": "served-1", "choices": [{"index": 0, "delta": {"content": text}}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            ]
            lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
            return Raw(lines.encode(), headers={"Content-Type": "text/event-stream"})

        endpoint.script = stream
    assert cli("run", config, endpoint=endpoint).code == 0
    assert cli("ledger", "export", tmp_path / "one.db", "-o", tmp_path / "one.parquet").code == 0
    before = len(endpoint.posts)
    config = job(ROWS, ledger="two.db", step={"stream": streamed})
    done = imported(cli("ledger", "import", config, tmp_path / "one.parquet", "--json", endpoint=endpoint))
    assert done == {"read": 8, "taken": 8, "known": 0, "refused": {}}
    again = imported(cli("ledger", "import", config, tmp_path / "one.parquet", "--json", endpoint=endpoint))
    assert (again["taken"], again["known"]) == (0, 8)
    status = json.loads(cli("status", config, "--json", endpoint=endpoint).out)
    assert (status["requests"]["answered"], status["credits"], status["total_tokens"]) == (8, 0, 0)
    assert status["last_run"] is None
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert json.loads(ended.out)["requests"] == len(endpoint.posts) - before == 4
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["s"] for row in rows] == [answer_to(row["t"]) for row in ROWS]
    assert [row["s_source"] for row in rows] == ["ledger"] * 8 + ["api"] * 4
    assert sum(row["s_credits"] or 0 for row in rows) == pytest.approx(
        sum(r["s_credits"] or 0 for r in rows[8:])
    )
    assert cli("ledger", "verify", tmp_path / "two.db").code == 0


def test_what_is_not_this_endpoint_s_is_left(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Another endpoint's keys, a body or answer that was changed, a line without an answer: each is counted, none is taken."""
    config = job(ROWS[:5], ledger="one.db")
    assert cli("run", config, endpoint=endpoint).code == 0
    assert cli("ledger", "export", tmp_path / "one.db", "-o", tmp_path / "one.parquet").code == 0
    lines = pq.read_table(tmp_path / "one.parquet").to_pylist()
    lines[0]["request"] = lines[0]["request"].replace(b"text", b"next")
    lines[1]["answer"] = b"no JSON"
    lines[2]["answer"] = None
    lines[3]["key"] = "no uuid"
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "spoilt.parquet")
    config = job(ROWS[:5], ledger="two.db")
    done = imported(cli("ledger", "import", config, tmp_path / "spoilt.parquet", "--json", endpoint=endpoint))
    assert (done["taken"], sum(done["refused"].values())) == (1, 4)
    with BookedEndpoint() as other:
        done = imported(cli("ledger", "import", config, tmp_path / "one.parquet", "--json", endpoint=other))
    assert (done["taken"], sum(done["refused"].values())) == (0, 5)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_of_another_tool_s_cache(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path, kind: str
) -> None:
    """A table of prompts and answers serves the rows that ask these, as far as the step would take the answer."""
    cache = [{"q": f"Is it? text {n}", "a": '{"label": "pos"}', "by": "old-1"} for n in range(6)]
    cache[1]["a"] = "perhaps"
    cache.append({"q": "nobody asks this", "a": '{"label": "neg"}', "by": "old-1"})
    table = pa.Table.from_pylist(cache)
    if kind == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(table, tmp_path / "cache.csv")
    elif kind == "jsonl":
        (tmp_path / "cache.jsonl").write_text("".join(json.dumps(line) + "\n" for line in cache))
    else:
        pq.write_table(table, tmp_path / "cache.parquet")
    endpoint.answer = lambda _: '{"label": "neg"}'
    config = job([*ROWS, ROWS[0]], step={"system": "Be just.", "prompt": "Is it? {{ t }}", "schema": SCHEMA})
    mapped = ("--map", "prompt=q", "--map", "answer=a", "--map", "model=by")
    done = imported(
        cli("ledger", "import", config, tmp_path / f"cache.{kind}", *mapped, "--json", endpoint=endpoint)
    )
    assert (done["read"], done["taken"]) == (7, 5)
    assert done["refused"] == {
        "the answer does not fit the step's schema or check": 1,
        "no row of the input has this prompt": 1,
    }
    summary = json.loads(cli("run", config, "--json", endpoint=endpoint).out)
    assert (summary["ok"], summary["requests"]) == (13, 7)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["s_label"] for row in rows] == ["pos", "neg", *["pos"] * 4, *["neg"] * 6, "pos"]
    assert rows[0]["s_model"] == "old-1"
    assert rows[0]["s_credits"] is None
    (tmp_path / "bill.jsonl").write_text(
        "".join(json.dumps({"idempotency_key": charge.key}) + "\n" for charge in endpoint.charges)
    )
    held = cli("ledger", "reconcile", config, tmp_path / "bill.jsonl", "--json", endpoint=endpoint)
    assert (held.code, json.loads(held.out)["matched"]) == (0, 7)  # what is imported is on nobody's bill here


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no column of the table is the prompt"),
        (("--map", "prompt=t"), "no column of the table is the answer"),
        (("--map", "prompt=x", "--map", "answer=t"), "there is no column `x`"),
        (("--map", "what=t"), "is none of prompt, answer, model"),
        (("--map", "prompt=t", "--map", "answer=t", "--step", "z"), "no step of that name"),
    ],
)
def test_what_is_not_clear_is_refused(
    cli: Callable[..., Ended], job: Callable[..., Path], tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    """In words, with exit code 2."""
    ended = cli("ledger", "import", job(ROWS), tmp_path / "in.parquet", *args)
    assert ended.code == 2
    assert said in " ".join(ended.err.split())
