"""Check: each part of a job by itself; what rests on something that failed is left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from enrich.base.loops import run_sync
from enrich.config import load_config
from enrich.errors import OutputError
from enrich.verbs.check import CheckLine, check_job
from tests.helpers.endpoint import KEY, BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

ALL = ["config", "input", "templates", "output", "ledger", "endpoint", "key", "models"]


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch, endpoint: BookedEndpoint) -> None:
    monkeypatch.setenv("BEATRA_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("BEATRA_API_KEY", KEY)


def checked(path: Path) -> dict[str, CheckLine]:
    """Check a job; gives the lines by their names, in order."""
    return {finding.name: finding for finding in run_sync(lambda: check_job(load_config(path)))}


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize(
    ("config", "last"),
    [
        ({"input": "none.parquet"}, "input"),
        ({"step": {"prompt": "{{ nowhere }}"}}, "templates"),
        ({"step": {"schema": {"type": "no such type"}}}, "templates"),
    ],
)
def test_what_rests_on_a_failure_is_left_out(
    job: Callable[..., Path], config: dict[str, Any], last: str
) -> None:
    """Nothing is said of what could not be looked at; what came before is."""
    found = checked(job(**config))
    assert list(found) == ALL[: ALL.index(last) + 1]
    assert [name for name, finding in found.items() if not finding.ok] == [last]


@pytest.mark.usefixtures("_environment")
def test_what_does_not_rest_on_it_is_looked_at_all_the_same(
    job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """An output that cannot be written, a ledger that is none and a refused key are told in one go."""
    (tmp_path / "blocked").touch()
    (tmp_path / "no.db").write_bytes(b"this is no database" * 100)
    endpoint.script = lambda seen: envelope("invalid_api_key", 401) if "models" in seen.path else None
    found = checked(job(output="blocked/out.parquet", ledger="no.db"))
    assert [name for name, finding in found.items() if not finding.ok] == ["output", "ledger", "key"]
    assert found["endpoint"].ok


@pytest.mark.usefixtures("_environment")
def test_an_output_over_the_input(job: Callable[..., Path]) -> None:
    """It is found as the configuration is read, before a run replaces what it reads."""
    with pytest.raises(OutputError, match="is a file of the input"):
        load_config(job(output="in.parquet"))


@pytest.mark.usefixtures("_environment")
def test_a_folder_of_outputs_counts_its_files(job: Callable[..., Path]) -> None:
    """Of a folder it is said how many files a run would make."""
    assert "1 partition of " in checked(job(output="out/"))["output"].text


@pytest.mark.usefixtures("_environment")
def test_a_shared_ledger_s_password_is_not_shown(job: Callable[..., Path]) -> None:
    """Nor when it cannot be reached."""
    finding = checked(job(ledger="postgresql://me:hush@127.0.0.1:9/x"))["ledger"]
    assert not finding.ok
    assert "hush" not in finding.line()


def test_a_line_for_people() -> None:
    """The mark stands first, in colour where there is any."""
    bad, good = CheckLine("input", ok=False, text="x"), CheckLine("input", ok=True, text="x")
    assert bad.line() == "FAIL  input      x"
    assert good.line() == "ok    input      x"
    assert bad.line(color=True) == "\033[31mFAIL\033[0m  input      x"


# --- as a command


def lines_of(ended: Ended) -> dict[str, tuple[str, str]]:
    """Read the findings: name → mark and text."""
    found = {}
    for line in ended.out.splitlines():
        if not line.startswith(" "):
            mark, name, text = line.split(None, 2)
            found[name] = (mark, text)
    return found


def test_without_a_key_all_else_is_checked(cli: Callable[..., Ended], job: Callable[..., Path]) -> None:
    """A missing key has a line of its own; templates, output, ledger and the endpoint are looked at all the same."""
    ended = cli("check", job(endpoint={"base_url": "https://localhost.invalid/v1"}))
    found = lines_of(ended)
    assert ended.code == 2
    assert [found[name][0] for name in ("config", "input", "templates", "output", "ledger")] == ["ok"] * 5
    assert found["key"] == ("FAIL", "there is no API key; searched in this order:")
    assert "endpoint" in found


@pytest.mark.parametrize("model", ["auto", "gpt-nope"])
def test_a_model_that_is_not_listed(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, model: str
) -> None:
    """Before any row gets a 404: the model is named, `auto` too where the endpoint has none, with those there are."""
    listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in ("llama-3", "qwen-3")]}

    def models(seen: Seen) -> Raw | None:
        return Raw(json.dumps(listed).encode()) if seen.path.endswith("/models") else None

    endpoint.script = models
    ended = cli("check", job(step={"model": model}), endpoint=endpoint)
    assert ended.code == 2
    assert lines_of(ended)["models"] == ("FAIL", f"not listed: {model}")
    assert "choose one of llama-3, qwen-3" in ended.out
    assert KEY not in ended.out


def test_the_query_of_a_base_url_stays_behind_each_path(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """An endpoint whose version stands in the query is asked with it, for health, models and answers."""
    answer = {"choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]}
    endpoint.script = lambda seen: Raw(json.dumps(answer if seen.method == "POST" else {"data": []}).encode())
    config = job(endpoint={"base_url": f"{endpoint.base_url}?api-version=2024-10-21&x=a%20b"})
    cli("check", config, BEATRA_API_KEY=KEY)
    assert cli("run", config, BEATRA_API_KEY=KEY).code == 0
    paths = {seen.path for seen in endpoint.seen}
    query = "?api-version=2024-10-21&x=a%20b"
    assert paths == {f"/v1/health{query}", f"/v1/models{query}", f"/v1/chat/completions{query}"}
