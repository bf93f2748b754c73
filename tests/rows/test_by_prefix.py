"""Rows that begin alike are asked one after another, so that a cache serves them; the output is as without."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.config import StepConfig
from enrich.prompt.request import RequestBuilder
from enrich.rows import by_prefix as module
from enrich.rows.by_prefix import by_prefix
from enrich.sandbox import SandboxOptions, ThreadedSandbox
from tests.helpers.chaos import place
from tests.helpers.endpoint import BookedEndpoint, answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.warm import Warm


def builder(**step: Any) -> RequestBuilder:
    """Compile a step."""
    return RequestBuilder(StepConfig(**{"name": "s", "prompt": "{{ t }}", **step}), "https://there")


def batches(values: list[Any], size: int = 7) -> Iterator[pa.RecordBatch]:
    """Give rows of a text and a nested value, some at a time."""
    table = pa.table({"t": pa.array(values, pa.string()), "row": [{"n": n} for n in range(len(values))]})
    yield from table.to_batches(max_chunksize=size)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.one_of(st.none(), st.text("ab", max_size=4)), max_size=60), st.sampled_from([1, 200, 1 << 20])
)
def test_every_row_comes_once_with_its_values(texts: list[str | None], run_bytes: int) -> None:
    """However many runs there are, rows keep index and values, and come in the order of their prompts; what cannot be asked first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RUN_BYTES", run_bytes)
        patch.setattr(module, "PORTION", 16)
        portions = list(by_prefix(batches(texts), builder(), least=10**9, folder=Path.cwd()))
    rows = [row for portion in portions for row in portion.rows]
    values = [value for portion in portions for value in portion.batch.to_pylist()]
    assert sorted(rows) == list(range(len(texts)))
    assert values == [{"t": texts[row], "row": {"n": row}} for row in rows]
    asked = [json.dumps(texts[row]) if (texts[row] or "").strip() else "" for row in rows]
    assert asked == sorted(asked)
    assert rows == sorted(rows, key=lambda row: ((texts[row] or ""), row))


def test_the_first_with_a_prefix_goes_ahead(tmp_path: Path) -> None:
    """One of each, where others share enough with it; one that stands alone, or shares too little, does not."""
    texts = [f"{name * 40} {n}" for n in range(3) for name in "abc"] + ["alone", "alike", "x" * 60]
    found = list(by_prefix(batches(texts), builder(), least=60, folder=tmp_path))
    first, others = found
    assert (first.first, others.first) == (True, False)
    assert first.batch["t"].to_pylist() == [f"{name * 40} 0" for name in "abc"]
    assert len(others.rows) == len(texts) - 3
    assert list(tmp_path.iterdir()) == []


def job(folder: Path, rows: list[str], **keys: Any) -> Path:
    """Write a job over these rows."""
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"t": rows}), folder / "in.parquet")
    step = {"name": "s", "prompt": "{{ t }}"}
    document = {
        "input": "in.parquet",
        "output": "out.parquet",
        "steps": [step],
        "limits": {"concurrency": 16},
        **keys,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder / "config.yaml"


def manuals() -> list[str]:
    """Give eight questions about each of sixty manuals of 1,500 tokens, in any order."""
    manual = "what to do and what not. " * 240
    rows = [f"{number:02} {manual} Question {n}?" for number in range(60) for n in range(8)]
    random.Random(5).shuffle(rows)
    return rows


def test_a_small_cache_serves_more(warm: Warm, tmp_path: Path) -> None:
    """By an emulator's books: with room for twenty of sixty prefixes nearly all is read from it in this order, and little without; same output."""
    shares, outputs = [], []
    for order in ("input", "prefix"):
        config = job(tmp_path / order, manuals(), order=order)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("enrich.sandbox.prefix_cache.MOST_BLOCKS", 220)
            with ThreadedSandbox(SandboxOptions(cache=1_024, latency=0.02)) as sandbox:
                env = {"BEATRA_BASE_URL": sandbox.base_url, "BEATRA_API_KEY": "sk-any"}
                ended = warm.run(config.parent, "run", config, "-q", "--json", env=env)
                totals = sandbox.books.to_dict()["totals"]
        assert ended.code == 0, ended.err
        shares.append(totals["cached_tokens"] / json.loads(ended.out)["prompt_tokens"])
        outputs.append(pq.read_table(config.parent / "out.parquet").select(["t", "s", "s_status"]))
    assert shares[0] < 0.4, shares
    assert shares[1] > 0.75, shares
    assert outputs[0].equals(outputs[1])


def test_nothing_else_changes(warm: Warm, tmp_path: Path) -> None:
    """What one order was answered is not asked in the other; a run that was stopped goes on; `dedupe: false` is refused."""
    with BookedEndpoint() as endpoint:
        rows = [f"text {n % 9}" for n in range(40)]
        config = job(tmp_path / "job", rows, order="prefix")
        assert (
            warm.run(
                config.parent, "run", config, "-q", "--set", "budget.requests=4", env=place(endpoint)
            ).code
            == 4
        )
        assert warm.run(config.parent, "run", config, "-q", env=place(endpoint)).code == 0
        assert len(endpoint.charges) == 9
        again = warm.run(
            config.parent, "run", config, "-q", "--set", "order=input", "--force", env=place(endpoint)
        )
        assert (again.code, len(endpoint.posts)) == (0, 9)
        refused = warm.run(config.parent, "run", config, "--set", "dedupe=false", env=place(endpoint))
        assert refused.code == 2
        assert "exclude each other" in refused.err


def test_a_folder_of_files(warm: Warm, tmp_path: Path) -> None:
    """Each file of a folder of outputs has its rows in their order."""
    (tmp_path / "in").mkdir()
    texts = {"one": ["b x", "a x", "b y"], "two": ["a y", "c", "b x"]}
    for name, rows in texts.items():
        pq.write_table(pa.table({"t": rows}), tmp_path / "in" / f"{name}.parquet")
    document = {
        "input": "in/",
        "output": {"path": "out/", "partitioned": True},
        "order": "prefix",
        "steps": [{"name": "s", "prompt": "{{ t }}"}],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    with BookedEndpoint() as endpoint:
        ended = warm.run(tmp_path, "run", "config.yaml", "-q", env=place(endpoint))
    assert ended.code == 0, ended.err
    for name, rows in texts.items():
        table = pq.read_table(tmp_path / "out" / f"{name}.parquet")
        assert table["t"].to_pylist() == rows
        assert table["s"].to_pylist() == [answer_to(row) for row in rows]
