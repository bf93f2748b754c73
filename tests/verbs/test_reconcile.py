"""A provider's bill is held to the ledger: every planted difference is found, and none is invented."""

from __future__ import annotations

import csv
import json
import random
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.endpoint import BookedEndpoint, Raw, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.warm import Ended, Warm

ROWS = 24
LOST = ("text 3", "text 4")  # charged, their answers lost


class _Provider(BookedEndpoint):
    """An endpoint whose books tell the time as well."""

    def __init__(self) -> None:
        super().__init__(script=self._lose, further=self._note)
        self.times: list[float] = []

    def _note(self, _: dict[str, Any]) -> dict[str, Any]:
        self.times.append(time.time())
        return {}

    def _lose(self, seen: Seen) -> Raw | None:
        lost = seen.method == "POST" and seen.body["messages"][0]["content"] in LOST
        return Raw(b"{" + b" " * 80, cut=8, charge=True) if lost else None

    def bill(self) -> list[dict[str, Any]]:
        """Its books, a line for each charge."""
        return [
            {
                "Request ID": charge.request_id,
                "Idempotency-Key": charge.key.upper(),
                "timestamp": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1e3):03d}Z",
                "model": "served-1",
                "input_tokens": charge.prompt_tokens,
                "output_tokens": charge.completion_tokens,
                "credits": charge.credits,
            }
            for charge, at in zip(self.charges, self.times, strict=True)
        ]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """A job that has run, two of whose answers were lost, and the provider's bill for it."""
    folder = tmp_path_factory.mktemp("bill")
    table = pa.table({"t": [f"text {n} {'x ' * n}".strip() if n > 4 else f"text {n}" for n in range(ROWS)]})
    pq.write_table(table, folder / "in.parquet")
    (folder / "config.yaml").write_text(
        "input: in.parquet\noutput: out.parquet\nsteps: [{name: s, prompt: '{{ t }}'}]\n"
        "retry: {attempts: 1}\ntolerate: 9\n"
    )
    with _Provider() as provider:
        from tests.helpers.endpoint import KEY

        env = {"BEATRA_BASE_URL": provider.base_url, "BEATRA_API_KEY": KEY}
        ended = warm.run(folder, "run", folder / "config.yaml", "-q", env=env)
        assert ended.code == 0, ended.err
        yield folder, provider.bill()


@pytest.fixture
def hold(
    cli: Callable[..., Ended], done: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Hold lines to the ledger; gives what `--json` says."""

    def run(lines: list[dict[str, Any]], *args: str, kind: str = "csv") -> dict[str, Any]:
        bill = tmp_path / f"usage.{kind}"
        if kind == "csv":
            with bill.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(lines[0]))
                writer.writeheader()
                writer.writerows(lines)
        elif kind == "jsonl":
            bill.write_text("".join(json.dumps(line) + "\n" for line in lines))
        else:
            pq.write_table(pa.Table.from_pylist(lines), bill)
        ended = cli("ledger", "reconcile", done[0] / ".beatra/ledger.db", bill, "--json", *args)
        found: dict[str, Any] = json.loads(ended.out)
        counts = {name: found[name] for name in ("matched", "differing", "only_provider", "only_here")}
        assert ended.code == (0 if counts["matched"] == sum(counts.values()) else 3), ended.err
        assert counts["matched"] + counts["differing"] + counts["only_provider"] == len(lines)
        return found

    return run


def without(lines: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Leave columns out."""
    return [{name: value for name, value in line.items() if name not in names} for line in lines]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_bill_that_is_right(
    hold: Callable[..., dict[str, Any]], done: tuple[Path, list[dict[str, Any]]], kind: str
) -> None:
    """All is matched by id; what was charged without an answer here is told, by its key."""
    lines = done[1]
    found = hold(lines, kind=kind)
    assert found["matched"] == ROWS - len(LOST)
    assert [one["why"] for one in found["findings"]] == ["no answer here (sent)"] * 2
    assert found["by"] == {"request_id": ROWS - 2, "key": 2}
    assert found["only_here"] == found["only_provider"] == 0
    tokens = sum(line["input_tokens"] for line in lines)
    assert found["sums"]["provider"]["prompt_tokens"] == tokens
    hours = found["hours"]
    assert sum(hour["provider"]["lines"] for hour in hours) == ROWS
    assert sum(hour["here"]["lines"] for hour in hours) == ROWS - 2


@pytest.mark.parametrize(
    "left_out", [(), ("Request ID",), ("Request ID", "Idempotency-Key")], ids=["id", "key", "time"]
)
@pytest.mark.parametrize("seed", range(3))
def test_planted_differences(
    hold: Callable[..., dict[str, Any]],
    done: tuple[Path, list[dict[str, Any]]],
    left_out: tuple[str, ...],
    seed: int,
) -> None:
    """Lines taken out, put in, put in twice, with other tokens, other credits: each is found under its name, nothing else."""
    chance = random.Random(seed)
    lines = [dict(line) for line in done[1]]
    lost = [n for n, line in enumerate(lines) if line["input_tokens"] == 2 and n in _lost(done)]
    exact = "Idempotency-Key" not in left_out
    # Where likeness decides, which one of several with the same tokens is missing hangs on when each came.
    sound = [n for n, line in enumerate(lines) if n not in lost and (exact or line["input_tokens"] != 2)]
    chance.shuffle(sound)
    gone, doubled, dearer, longer = sound[0], sound[1], sound[2], sound[3]
    kept = [dict(line) for n, line in enumerate(lines) if n not in (gone, *lost)]
    by_id = {line["Request ID"]: line for line in kept}
    by_id[lines[dearer]["Request ID"]]["credits"] += 0.001
    if exact:  # tokens are what likeness goes by
        by_id[lines[longer]["Request ID"]]["output_tokens"] += 1
    twin = {**lines[doubled], "Request ID": lines[doubled]["Request ID"]}
    foreign = {
        **lines[doubled],
        "Request ID": "req-foreign",
        "Idempotency-Key": "0" * 32,
        "input_tokens": 999,
    }
    made = [*kept, twin, foreign]
    chance.shuffle(made)
    found = hold(without(made, *left_out))
    assert found["only_here"] == 1
    assert found["only_provider"] == 2
    assert found["differing"] == 1 + exact
    here = [one for one in found["findings"] if one["standing"] == "only_here"]
    assert [one["request_id"] for one in here] == [lines[gone]["Request ID"]]
    whys = sorted(one["why"].partition(" ")[0] for one in found["findings"] if one["standing"] == "differing")
    assert whys == (["completion_tokens", "credits"] if exact else ["credits"])
    assert found["matched"] == ROWS - len(LOST) - 1 - found["differing"]


def _lost(done: tuple[Path, list[dict[str, Any]]]) -> set[int]:
    """Give the places of the lines whose answers were lost."""
    known = pq.read_table(done[0] / "out.parquet", columns=["s_request_id"])["s_request_id"].to_pylist()
    return {n for n, line in enumerate(done[1]) if line["Request ID"] not in known}


def test_columns_of_any_name(
    hold: Callable[..., dict[str, Any]], done: tuple[Path, list[dict[str, Any]]]
) -> None:
    """`--map` names them; numbers with commas and times in milliseconds are read."""
    lines = [
        {
            "Vorgang": line["Request ID"],
            "Ein": f"{line['input_tokens']:,}",
            "Wann": 1_700_000_000_000 + n,
        }
        for n, line in enumerate(done[1])
    ]
    found = hold(lines, "--map", "request_id=Vorgang", "--map", "prompt_tokens=Ein", "--map", "time=Wann")
    assert (found["matched"], found["only_provider"], found["only_here"]) == (ROWS - 2, 2, 0)
    assert {hour["hour"] for hour in found["hours"]} == {"2023-11-14T22:00Z"}


def test_a_time_that_was_asked_for(
    hold: Callable[..., dict[str, Any]], done: tuple[Path, list[dict[str, Any]]]
) -> None:
    """What is not of that time counts as no difference, and is told of."""
    found = hold(done[1][:1], "--since", "2020-01-01", "--until", "2021-01-01")
    assert found["only_here"] == 0
    assert found["aside"] >= ROWS - 3


def test_it_is_said_and_written(
    cli: Callable[..., Ended], done: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """People get counts, sums and examples; `-o` a line for everything, of whatever standing."""
    bill = tmp_path / "usage.jsonl"
    bill.write_text("".join(json.dumps(line) + "\n" for line in done[1][:-1]))
    ended = cli("ledger", "reconcile", done[0] / "config.yaml", bill, "-o", tmp_path / "lines.parquet")
    assert ended.code == 3
    assert "only here" in ended.out
    assert "hour (UTC)" in ended.out
    table = pq.read_table(tmp_path / "lines.parquet")
    assert table.num_rows in (ROWS, ROWS - 1)
    assert set(table["standing"].to_pylist()) >= {"matched"}


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [
        ("a,b\n1,2\n", (), "--map request_id=COLUMN"),
        ("request_id\nx\n", ("--map", "key=nothing"), "no column `nothing`"),
        ("request_id\nx\n", ("--map", "what=request_id"), "nothing that a bill holds"),
        ("request_id\nx\n", ("--map", "key"), "WHAT=COLUMN"),
        ("request_id\nx\n", ("--since", "soon"), "no time"),
        ("request_id,tokens\nx,many\n", (), "line 1 of the bill: 'many' is no amount"),
        ("request_id,time\nx,1\ny,noon\n", (), "line 2 of the bill: 'noon' is no time"),
    ],
)
def test_what_is_no_bill_is_refused(
    cli: Callable[..., Ended],
    done: tuple[Path, list[dict[str, Any]]],
    text: str,
    args: tuple[str, ...],
    said: str,
) -> None:
    """In words, with exit code 2."""
    (done[0] / "wrong.csv").write_text(text)
    ended = cli("ledger", "reconcile", done[0] / ".beatra/ledger.db", done[0] / "wrong.csv", *args)
    assert ended.code == 2
    assert said in " ".join(ended.err.split())
