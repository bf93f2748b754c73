"""Keys that change while a run goes on: in a file, by a program; in other headers, at other URLs."""

from __future__ import annotations

import json
import stat
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.helpers.endpoint import BookedEndpoint, Raw, Seen, envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.warm import Ended

SECRET = "sk-first-0123456789-SECRET-{}"  # long enough to be looked for in answers
PROGRAM = """\
import json, pathlib, sys
here = pathlib.Path(sys.argv[1])
with (here / "told").open("a") as told:
    told.write("x")
key = (here / "key").read_text()
print("loud secret", key, file=sys.stderr)
print(json.dumps({"access_token": key, "expires_in": float(sys.argv[2])}) if len(sys.argv) > 2 else key)
"""


class Rotation:
    """Puts one key after the other in place, where the server and the source of the key have it."""

    def __init__(self, folder: Path, endpoint: BookedEndpoint) -> None:
        self.endpoint = endpoint
        self.file = folder / "key"
        self.count = 0
        self.key = ""
        endpoint.accepts = lambda seen: seen.headers.get("authorization") == f"Bearer {self.key}"
        self.turn()

    def turn(self) -> None:
        """Make a new key, of which the server knows first."""
        self.count += 1
        self.key = SECRET.format(self.count)
        fresh = self.file.with_name("fresh")
        fresh.write_text(self.key)
        fresh.chmod(stat.S_IRUSR | stat.S_IWUSR)
        fresh.replace(self.file)


def source(kind: str, folder: Path, *, lives: str | None = None) -> dict[str, Any]:
    """Configure where the key comes from."""
    if kind == "file":
        return {"api_key_file": "key"}
    (folder / "tell.py").write_text(PROGRAM)
    return {"api_key_command": [sys.executable, "tell.py", str(folder), *([lives] if lives else [])]}


def rotating(rotation: Rotation, every: float) -> Callable[[], None]:
    """Change the key every so many seconds, until told to stop."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(every):
            rotation.turn()

    thread = threading.Thread(target=work)
    thread.start()

    def stop() -> None:
        over.set()
        thread.join()

    return stop


def shown(folder: Path, ended: Ended) -> Iterator[bytes]:
    """Give all that a run leaves behind, but the key's own file."""
    yield ended.out.encode()
    yield ended.err.encode()
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in ("key", "fresh"):
            yield path.read_bytes()


def run_while_keys_change(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    tmp_path: Path,
    *,
    kind: str,
    seconds: float,
    every: float,
) -> None:
    """Run a job that takes so many seconds; see that each request is charged once, and no key shown."""
    rotation = Rotation(tmp_path, endpoint)
    endpoint.answer = lambda body: f"{rotation.key} {SECRET.format(1)} {body['messages'][-1]['content']}"
    rows = [{"t": f"text {n}"} for n in range(int(seconds * 20))]
    limits = {"requests_per_minute": 1200, "concurrency": 8}
    config = job(
        rows,
        endpoint={"base_url": endpoint.base_url, **source(kind, tmp_path)},
        limits=limits,
        report="r.html",
    )
    stop = rotating(rotation, every)
    try:
        ended = cli("run", config, "--json")
    finally:
        stop()
    assert ended.code == 0, ended.err
    assert pq.read_table(tmp_path / "out.parquet")["s_status"].to_pylist() == ["ok"] * len(rows)
    assert set(endpoint.charges_per_body.values()) == {1}
    assert len(endpoint.charges) == len(rows)
    summary = json.loads(ended.out)
    assert summary["attempts"] == len(endpoint.posts)
    assert rotation.count > 2
    used = {seen.headers["authorization"] for seen in endpoint.posts}
    assert len(used) > 2
    for data in shown(tmp_path, ended):
        for number in range(1, rotation.count + 1):
            assert SECRET.format(number).encode() not in data


@pytest.mark.parametrize("kind", ["file", "command"])
def test_keys_that_change(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path, kind: str
) -> None:
    """A run outlives its keys: what is refused with the old one goes again with the new one, and none of them is shown."""
    run_while_keys_change(cli, job, endpoint, tmp_path, kind=kind, seconds=4, every=1.2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "command"])
def test_keys_that_change_for_long(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path, kind: str
) -> None:
    """Half a minute, a new key every five seconds."""
    run_while_keys_change(cli, job, endpoint, tmp_path, kind=kind, seconds=30, every=5)


@pytest.mark.parametrize("kind", ["file", "command"])
def test_a_key_that_is_no_good(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path, kind: str
) -> None:
    """The source is asked once more, then the run stops, and says where that key came from."""
    rotation = Rotation(tmp_path, endpoint)
    endpoint.accepts = lambda _: False
    config = job(endpoint={"base_url": endpoint.base_url, **source(kind, tmp_path)})
    ended = cli("run", config)
    assert ended.code == 4
    place = f"endpoint.api_key_file {tmp_path / 'key'}" if kind == "file" else "endpoint.api_key_command `"
    assert f"Check {place}" in ended.err
    assert "BEATRA_API_KEY" not in ended.err
    assert rotation.key not in ended.err
    assert "loud secret" not in ended.err
    if kind == "command":
        assert len((tmp_path / "told").read_text()) == 2


def test_the_variable_is_named_where_it_was_used(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Whose key was refused is told."""
    ended = cli(
        "run", job(endpoint={"api_key_env": "OUR_KEY"}), endpoint=endpoint, OUR_KEY="sk-nobody-knows-this-one"
    )
    assert ended.code == 4
    assert "Check the environment variable OUR_KEY" in ended.err


def test_a_program_is_asked_before_its_key_is_over(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """With `expires_in` nothing is refused; at a start it is run once, however many parts of it ask."""
    rotation = Rotation(tmp_path, endpoint)
    known = [rotation.key]

    def accepts(seen: Seen) -> bool:
        if rotation.key not in known:
            known.append(rotation.key)
        return seen.headers["authorization"].removeprefix("Bearer ") in known[-2:]

    endpoint.accepts = accepts
    rows = [{"t": f"text {n}"} for n in range(60)]
    place = {"base_url": endpoint.base_url, **source("command", tmp_path, lives="1.0")}
    stop = rotating(rotation, 1.0)
    try:
        ended = cli("run", job(rows, endpoint=place, limits={"requests_per_minute": 1200, "concurrency": 4}))
    finally:
        stop()
    assert ended.code == 0, ended.err
    assert not [seen for seen in endpoint.posts if not seen.headers["authorization"]]
    assert len(endpoint.posts) == 60
    assert 3 <= len((tmp_path / "told").read_text()) <= 8


def test_what_sends_nothing_runs_no_program(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Preview, plan and collect need no key; `check` asks for it."""
    Rotation(tmp_path, endpoint)
    config = job(endpoint={"base_url": endpoint.base_url, **source("command", tmp_path)})
    for command in (("preview", config), ("plan", config), ("collect", config, "-o", "c.parquet")):
        assert cli(*command).code == 0
    assert not (tmp_path / "told").exists()
    checked = cli("check", config)
    assert checked.code == 0, checked.out + checked.err
    assert "accepted, from endpoint.api_key_command" in checked.out
    assert (tmp_path / "told").read_text() == "x"


def test_another_header_and_query(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """The key stands in the header that is named, alone; the parameters stand behind every URL."""
    endpoint.accepts = lambda seen: seen.headers.get("api-key") == "sk-0123456789-of-the-gateway"
    place = {
        "base_url": endpoint.base_url,
        "auth": {"header": "api-key"},
        "query": {"api-version": "2026-01-01"},
    }
    ended = cli("run", job(endpoint=place), BEATRA_API_KEY="sk-0123456789-of-the-gateway")
    assert ended.code == 0, ended.err
    assert {seen.path for seen in endpoint.posts} == {"/v1/chat/completions?api-version=2026-01-01"}
    assert not any("authorization" in seen.headers for seen in endpoint.posts)
    cli("check", job(endpoint=place), BEATRA_API_KEY="sk-0123456789-of-the-gateway")
    assert {seen.path for seen in endpoint.seen if seen.method == "GET"} == {
        "/v1/health?api-version=2026-01-01",
        "/v1/models?api-version=2026-01-01",
    }


def test_an_endpoint_named_whole(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """Its path is taken as it is; one that ends as usual is the same endpoint as its `base_url`, and pays once with it."""
    place = endpoint.base_url.removesuffix("/v1")
    whole = job(endpoint={"url": f"{place}/serving/llm/invocations?v=2"})
    assert cli("run", whole, endpoint=endpoint).code == 0
    assert {seen.path for seen in endpoint.posts} == {"/serving/llm/invocations?v=2"}
    checked = cli("check", whole, endpoint=endpoint)
    assert checked.code == 0, checked.out
    assert "is named whole" in checked.out
    posts = len(endpoint.posts)
    assert (
        cli(
            "run",
            job(output="b.parquet", ledger="b.db", endpoint={"url": f"{endpoint.base_url}/chat/completions"}),
            endpoint=endpoint,
        ).code
        == 0
    )
    assert {seen.path for seen in endpoint.posts[posts:]} == {"/v1/chat/completions"}
    posts = len(endpoint.posts)
    assert cli("run", job(output="c.parquet", ledger="b.db"), endpoint=endpoint).code == 0
    assert len(endpoint.posts) == posts


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"url": "http://127.0.0.1/a", "base_url": "http://127.0.0.1/b"}, "`url` and `base_url` exclude each other"),
        ({"api_key_file": "a", "api_key_command": ["b"]}, "`api_key_file` and `api_key_command` exclude each other"),
        ({"api_key_command": []}, "must have at least one item"),
        ({"api_key_command": "cat key"}, "api_key_command"),
        ({"api_key_expires_in": 5}, "`api_key_expires_in` is of `api_key_command`"),
        ({"auth": {"header": "content-type"}}, "`header` must be one that requests do not set themselves"),
        ({"auth": {"header": "a b"}}, "holds what no header's name may"),
        ({"auth": {"header": "api-key"}, "headers": {"api-key": "x"}}, "every request sets this header itself"),
        ({"query": {"api_key": "x"}}, "holds a key in its query"),
    ],
)  # fmt: skip
def test_what_cannot_be(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    place: dict[str, Any],
    message: str,
) -> None:
    """It is refused before anything is sent."""
    ended = cli("run", job(endpoint=place), endpoint=endpoint)
    assert ended.code == 2
    assert message in ended.err
    assert not endpoint.posts


def test_a_refusal_that_is_one_row_s(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A firewall's 403 for one row is that row's still: a key from a file is not suspected for it."""
    Rotation(tmp_path, endpoint)
    denied = Raw(b"<html>Denied</html>", 403, {"Content-Type": "text/html"})
    endpoint.script = lambda seen: denied if b"bad" in seen.raw else None
    rows = [{"t": text} for text in ("one", "bad", "two", "three")]
    place = {"base_url": endpoint.base_url, **source("file", tmp_path)}
    ended = cli("run", job(rows, endpoint=place, tolerate=1))
    assert ended.code == 0, ended.err
    assert Counter(pq.read_table(tmp_path / "out.parquet")["s_status"].to_pylist()) == {"ok": 3, "error": 1}


def test_other_refusals_ask_no_source(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A spent balance is nothing that another key would mend."""
    Rotation(tmp_path, endpoint)
    endpoint.script = lambda _: envelope("insufficient_balance", 402)
    ended = cli("run", job(endpoint={"base_url": endpoint.base_url, **source("command", tmp_path)}))
    assert ended.code == 4
    assert (tmp_path / "told").read_text() == "x"
