"""Pictures of rows go to the endpoint byte for byte, are paid for once, and stay out of the ledger."""

from __future__ import annotations

import functools
import http.server
import json
import os
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.helpers.pictures import GIF, JPEG, PDF, WEBP, digest, png, received, seen_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint, Raw, Seen
    from tests.helpers.warm import Ended, Warm

IMAGES = {"images": ["photo"]}


@pytest.fixture
def endpoint(endpoint: BookedEndpoint) -> BookedEndpoint:
    """An endpoint that answers with the digests of the pictures it received."""
    endpoint.answer = seen_in
    return endpoint


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Six pictures in a folder beside the configuration."""
    (tmp_path / "photos").mkdir()
    for number in range(6):
        (tmp_path / "photos" / f"{number}.png").write_bytes(png(number, 3_000))
    return [f"photos/{number}.png" for number in range(6)]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Read the output."""
    return pq.read_table(folder / "out.parquet").to_pylist()


def test_the_endpoint_receives_the_bytes(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    photos: list[str],
    tmp_path: Path,
) -> None:
    """A column of paths: each row's picture stands in its last message, the type is told from the bytes."""
    (tmp_path / "photos" / "0.png").write_bytes(JPEG)
    ended = cli("run", job([{"t": f"What? {p}", "photo": p} for p in photos], step=IMAGES), endpoint=endpoint)
    assert ended.code == 0, ended.err
    bodies = {seen.body["messages"][-1]["content"][0]["text"]: seen.body for seen in endpoint.posts}
    for path in photos:
        raw = (tmp_path / path).read_bytes()
        kind = "image/jpeg" if raw == JPEG else "image/png"
        assert received(bodies[f"What? {path}"]) == [(kind, raw)]
    assert [row["s"] for row in rows_of(tmp_path)] == [digest((tmp_path / p).read_bytes()) for p in photos]
    assert all(set(row) == set(rows_of(tmp_path)[0]) for row in rows_of(tmp_path))


def test_bytes_lists_templates_and_data_sets(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    photos: list[str],
    tmp_path: Path,
) -> None:
    """Bytes, lists of paths, templates, and the struct of bytes and path of data sets all name pictures, in their order."""
    rows = [
        {
            "t": "a",
            "raw": GIF,
            "many": photos[:2],
            "n": 3,
            "of_set": {"bytes": WEBP, "path": "x.webp"},
        },
        {
            "t": "b",
            "raw": PDF,
            "many": photos[4:],
            "n": 2,
            "of_set": {"bytes": None, "path": photos[5]},
        },
    ]
    images = ["raw", "many", "photos/{{ n }}.png", "{{ of_set }}"]
    ended = cli("run", job(rows, step={"images": images}), endpoint=endpoint)
    assert ended.code == 0, ended.err
    png_of = {path: (tmp_path / path).read_bytes() for path in photos}
    assert [row["s"] for row in rows_of(tmp_path)] == [
        digest(GIF, png_of[photos[0]], png_of[photos[1]], png_of[photos[3]], WEBP),
        digest(PDF, png_of[photos[4]], png_of[photos[5]], png_of[photos[2]], png_of[photos[5]]),
    ]
    last = max(
        (seen.body for seen in endpoint.posts), key=lambda body: body["messages"][0]["content"][0]["text"]
    )
    assert last["messages"][0]["content"][1]["type"] == "file"
    assert rows_of(tmp_path)[0]["raw"] == GIF


def test_the_ledger_holds_no_pictures(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A megabyte for each row leaves a ledger of some kilobytes; `collect`, `ledger export` and the report work on it."""
    rows = [{"t": f"{n}", "photo": png(n, 1_000_000)} for n in range(12)]
    config = job(rows, step=IMAGES, ledger="ledger.db")
    assert cli("run", config, endpoint=endpoint).code == 0
    assert sum(file.stat().st_size for file in tmp_path.glob("ledger.db*")) < 3_000_000
    bodies = [row[0] for row in sqlite3.connect(tmp_path / "ledger.db").execute("SELECT body FROM request")]
    assert len(bodies) == 12
    assert all(b";image/png;" in bytes(body) and b"base64" not in bytes(body) for body in bodies)
    assert cli("collect", config, "-o", tmp_path / "again.parquet", endpoint=endpoint).code == 0
    assert pq.read_table(tmp_path / "again.parquet")["s"].to_pylist() == [r["s"] for r in rows_of(tmp_path)]
    assert cli("report", config, endpoint=endpoint).code == 0
    exported = cli("ledger", "export", config, "-o", tmp_path / "ledger.jsonl")
    assert exported.code == 0, exported.err
    assert cli("show", config, endpoint=endpoint).code == 0


def test_other_bytes_are_another_request(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    photos: list[str],
    tmp_path: Path,
) -> None:
    """The key covers the bytes, not the path: a second run asks for those alone that changed, equal ones are asked once."""
    (tmp_path / photos[1]).write_bytes((tmp_path / photos[0]).read_bytes())
    config = job([{"t": "same", "photo": p} for p in photos], step=IMAGES)
    assert cli("run", config, endpoint=endpoint).code == 0
    assert len(endpoint.charges) == 5
    (tmp_path / photos[3]).write_bytes(png(99))
    (tmp_path / photos[4]).rename(tmp_path / "photos/moved.png")
    (tmp_path / photos[4]).symlink_to("moved.png")
    ended = cli("run", config, "--json", endpoint=endpoint)
    assert json.loads(ended.out)["requests"] == 1
    assert rows_of(tmp_path)[3]["s"] == digest(png(99))
    assert (len(endpoint.charges), endpoint.conflicts) == (6, 0)


def test_a_changed_job_is_looked_through_before_it_is_asked(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Another prompt over more rows: what would be asked again is looked for in several parts of them, then all are asked."""
    rows = [{"t": f"{n}", "photo": png(n, 1_000_000)} for n in range(45)]  # more than one batch
    assert cli("run", job(rows[:2], step=IMAGES), endpoint=endpoint).code == 0
    ended = cli(
        "run", job(rows, step={**IMAGES, "prompt": "Now {{ t }}"}, max_reasked="100%"), endpoint=endpoint
    )
    assert ended.code == 0, ended.err
    assert [row["s"] for row in rows_of(tmp_path)] == [digest(png(n, 1_000_000)) for n in range(45)]


def test_a_row_whose_picture_cannot_be_had_fails_by_name(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    photos: list[str],
    tmp_path: Path,
) -> None:
    """Missing, empty, no picture, too large, a folder, a pipe, nothing: each row says which, the others go."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"just text")
    (tmp_path / "large.png").write_bytes(png(1, 10_000))
    wrong = ["gone.png", "empty.png", "text.png", "large.png", "photos", "pipe.png", None]
    rows = [{"t": "x", "photo": p} for p in [*wrong, photos[2]]]
    ended = cli("run", job(rows, step={**IMAGES, "images_max_bytes": 5_000}, tolerate=7), endpoint=endpoint)
    assert ended.code == 0, ended.err
    errors = [row["s_error"] for row in rows_of(tmp_path)]
    codes = [error and error.partition(":")[0] for error in errors]
    assert codes == [
        "image_missing", "image_kind", "image_kind", "image_too_large",
        "image_unreadable", "image_unreadable", "null_value", None,
    ]  # fmt: skip
    assert all(name in error for name, error in zip(wrong[:6], errors, strict=False) if name)
    assert len(endpoint.posts) == 1


def test_killed_and_started_again_each_is_charged_once(
    warm: Warm, job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """SIGKILL in the middle of requests with pictures, twice: every body is charged once, every row has its answer."""
    from tests.helpers.endpoint import KEY

    rows = [{"t": f"{n}", "photo": png(n, 50_000)} for n in range(40)]
    config = job(rows, step=IMAGES, limits={"concurrency": 4})
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    for posts in (8, 20):
        running = warm.start(tmp_path, "run", config, "-q", env=env)
        struck = threading.Event()

        def kill(
            _: Seen, pid: int = running.pid, most: int = posts, struck: threading.Event = struck
        ) -> Raw | None:
            if len(endpoint.posts) >= most and not struck.is_set():
                struck.set()
                os.kill(pid, signal.SIGKILL)
            return None

        endpoint.script = kill
        assert running.wait().code == -signal.SIGKILL
    endpoint.script = None
    assert warm.run(tmp_path, "run", config, "-q", env=env).code == 0
    assert set(endpoint.charges_per_body.values()) == {1}
    assert (len(endpoint.charges), endpoint.conflicts) == (40, 0)
    assert [row["s"] for row in rows_of(tmp_path)] == [digest(png(n, 50_000)) for n in range(40)]


def test_an_attempt_made_again_reads_the_picture_again(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    photos: list[str],
    tmp_path: Path,
) -> None:
    """After a 503 the same bytes go under the same key; a file that changed meanwhile fails its row, and nothing is sent."""
    from tests.helpers.endpoint import envelope

    struck: set[str] = set()

    def script(seen: Seen) -> Raw | None:
        if seen.method != "POST" or seen.key in struck:
            return None
        struck.add(seen.key)
        if seen.body["messages"][0]["content"][0]["text"] == photos[1]:
            (tmp_path / photos[1]).write_bytes(png(77))
        return envelope("overloaded", 503, retryable=True)

    endpoint.script = script
    config = job([{"t": p, "photo": p} for p in photos[:3]], step=IMAGES, tolerate=1)
    ended = cli("run", config, endpoint=endpoint)
    assert ended.code == 0, ended.err
    rows = rows_of(tmp_path)
    assert [row["s_status"] for row in rows] == ["ok", "error", "ok"]
    assert rows[1]["s_error"].startswith("image_changed: ")
    assert photos[1] in rows[1]["s_error"]
    assert (len(endpoint.charges), len(endpoint.posts), endpoint.conflicts) == (2, 5, 0)
    again = cli("run", config, "--json", endpoint=endpoint)
    assert json.loads(again.out)["requests"] == 1
    assert rows_of(tmp_path)[1]["s"] == digest(png(77))


def test_a_picture_does_not_count_as_text(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """A budget of tokens that base64 counted as text would break at once holds every row; `plan` sees as few tokens."""
    rows = [{"t": f"{n}", "photo": png(n, 400_000)} for n in range(20)]
    config = job(rows, step={**IMAGES, "max_tokens": 50}, budget={"tokens": 200_000})
    plan = json.loads(cli("plan", config, "--json", endpoint=endpoint).out)
    assert plan["tokens"]["likely"] < 50_000 if isinstance(plan["tokens"], dict) else plan["tokens"] < 50_000
    assert cli("run", config, endpoint=endpoint).code == 0
    assert [row["s_status"] for row in rows_of(tmp_path)] == ["ok"] * 20


def test_preview_shows_what_goes_and_check_warns(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, photos: list[str]
) -> None:
    """`preview` names type, size and digest in the place of the bytes and has the key that is sent; `check` warns of parts."""
    config = job([{"t": "x", "photo": photos[0]}], step=IMAGES)
    shown = cli("preview", config, endpoint=endpoint)
    assert ";image/png;" in shown.out
    assert "base64" not in shown.out
    checked = cli("check", config, endpoint=endpoint)
    assert checked.code == 0
    assert "content parts" in checked.out + checked.err
    assert cli("run", config, endpoint=endpoint).code == 0
    assert endpoint.posts[-1].key in shown.out


def test_without_images_bodies_are_what_they_were(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint
) -> None:
    """A step that names no pictures sends text alone, also beside a column of bytes."""
    endpoint.answer = lambda _: "ok"
    assert cli("run", job([{"t": "x", "photo": GIF}]), endpoint=endpoint).code == 0
    assert endpoint.posts[0].raw == b'{"model":"auto","messages":[{"role":"user","content":"x"}]}'
    assert "content parts" not in cli("check", job([{"t": "x"}]), endpoint=endpoint).out


@pytest.mark.parametrize("images", [["nothing"], [""], "photo"])
def test_what_names_no_column_is_refused(
    cli: Callable[..., Ended], job: Callable[..., Path], images: Any
) -> None:
    """A column that is not there, an empty name, a text in place of a list: exit code 2, and nothing is sent."""
    ended = cli("run", job([{"t": "x", "photo": "a.png"}], step={"images": images}), "--sandbox")
    assert ended.code == 2
    assert "images" in ended.err


# --- from elsewhere -------------------------------------------------------------------------------------


class _Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `/busy/…` is a 503 the first time, `/to/…` leads elsewhere."""

    asked: list[str] = []  # noqa: RUF012  # of the one server of a test

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/busy/"):
            if self.asked.count(self.path) == 1:
                self.send_error(503)
                return
            self.path = self.path.removeprefix("/busy")
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to").split("?")[0])
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve the test's folder on loopback."""
    _Files.asked.clear()
    served = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Files, directory=str(tmp_path))
    )
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    served.shutdown()
    thread.join()
    served.server_close()


def test_pictures_of_urls(
    cli: Callable[..., Ended],
    job: Callable[..., Path],
    endpoint: BookedEndpoint,
    photos: list[str],
    server: str,
) -> None:
    """They are fetched once each and go as bytes; a busy server is asked again, a 404 fails the row and shows no secret."""
    import base64

    tmp_path = job().parent
    urls = [
        f"{server}/{photos[0]}",
        f"{server}/busy/{photos[1]}",
        f"{server}/to/{photos[2]}",
        f"{server}/gone.png?token=SECRET",
        (tmp_path / photos[3]).as_uri(),
        f"data:image/png;base64,{base64.b64encode(png(5)).decode()}",
    ]
    ended = cli(
        "run", job([{"t": "x", "photo": u} for u in urls], step=IMAGES, tolerate=1), endpoint=endpoint
    )
    assert ended.code == 0, ended.err
    rows = rows_of(tmp_path)
    expected = [digest((tmp_path / photos[n]).read_bytes()) for n in range(4)]
    assert [row["s"] for row in rows] == [*expected[:3], None, expected[3], digest(png(5))]
    assert rows[3]["s_error"].startswith("image_missing: ")
    assert "404" in rows[3]["s_error"]
    assert "SECRET" not in rows[3]["s_error"]
    assert _Files.asked.count(f"/{photos[0]}") == 1


def test_a_frame_s_bytes(endpoint: BookedEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Data frames show pictures too; the second call pays for nothing."""
    import pandas as pd

    import enrich.pandas  # noqa: F401  # registers the accessor
    from tests.helpers.endpoint import KEY

    monkeypatch.setenv("BEATRA_API_KEY", KEY)
    frame = pd.DataFrame({"photo": [png(1), GIF], "t": ["a", "b"]})
    for _ in range(2):
        out = frame.beatra.complete(
            "{{ t }}",
            images=["photo"],
            base_url=endpoint.base_url,
            ledger=tmp_path / "frame.db",
            progress=False,
        )
        assert out["answer"].tolist() == [digest(png(1)), digest(GIF)]
    assert len(endpoint.charges) == 2
