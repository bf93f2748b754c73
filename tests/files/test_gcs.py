"""Google Cloud Storage, on an emulator: the same as any other store."""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet as pq

from enrich.files import storage
from tests.helpers.chaos import place
from tests.helpers.loopback import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended

EMULATOR = shutil.which("gcp-storage-emulator")
pytestmark = pytest.mark.skipif(EMULATOR is None, reason="there is no GCS (pip install gcp-storage-emulator)")


@pytest.fixture(scope="module")
def options() -> Iterator[str]:
    """The options of a URL that lead to an emulator with a bucket `lake`."""
    assert EMULATOR is not None
    port = free_port()
    command = [
        EMULATOR,
        "start",
        "--host=127.0.0.1",
        f"--port={port}",
        "--in-memory",
        "--default-bucket=lake",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("started" in line for line in iter(process.stderr.readline, ""))
        threading.Thread(target=process.stderr.read, daemon=True).start()  # lest its pipe fills up
        yield f"endpoint_override=127.0.0.1:{port}&scheme=http&retry_limit_seconds=5"
        process.kill()


@pytest.fixture
def lake(options: str) -> Callable[[str], str]:
    """Gives the URL of a key in the bucket `lake`."""
    return lambda key: f"gs://anonymous@lake/{key}?{options}"


def test_a_run_from_bucket_to_bucket(
    cli: Callable[..., Ended], tmp_path: Path, endpoint: BookedEndpoint, lake: Callable[[str], str]
) -> None:
    """Input in partitions found by a glob, output and report in a bucket; the second run sends nothing."""
    for day in (1, 2):
        pq.write_table(pa.table({"t": [f"a{day}", f"b{day}"]}), tmp_path / "x.parquet")
        storage.put(lake(f"in/day={day}/x.parquet"), tmp_path / "x.parquet")
    document = {
        "input": lake("in/day=*/*.parquet"),
        "output": lake("out/o.parquet"),
        "report": lake("out/r.html"),
        "steps": [{"name": "s", "prompt": "{{ t }}"}],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    for _ in range(2):
        ended = cli("run", "config.yaml", XDG_STATE_HOME=str(tmp_path / "state"), **place(endpoint))
        assert ended.code == 0, ended.err
    assert len(endpoint.posts) == 4
    with storage.open_file(lake("out/o.parquet")) as file:
        table = pq.read_table(file)
    assert table.column("t").to_pylist() == ["a1", "b1", "a2", "b2"]
    assert table.column("day").to_pylist() == [1, 1, 2, 2]
    assert b"</html>" in (storage.read(lake("out/r.html")) or b"")


def test_objects_are_found_and_told_apart(lake: Callable[[str], str], tmp_path: Path) -> None:
    """Globs, folders and versions are as in other stores; what is uploaded in parts is whole."""
    (tmp_path / "x").write_bytes(content := bytes(range(256)) * (20 << 12))
    storage.put(lake("f/a=1/big"), tmp_path / "x")
    storage.write(lake("f/a=2/deep/b.csv"), b"one")
    assert storage.read(lake("f/a=1/big")) == content
    first = storage.stat(lake("f/a=2/deep/b.csv"))
    storage.write(lake("f/a=2/deep/b.csv"), b"two")
    second = storage.stat(lake("f/a=2/deep/b.csv"))
    assert first is not None
    assert second is not None
    assert first.version != second.version
    for pattern, count in (("f/*", 2), ("f/*/*", 2), ("f/**/*.csv", 1), ("f/a=?/b*", 1), ("f/a=?/x*", 0)):
        assert len(storage.glob(lake(pattern))) == count, pattern
    assert len(storage.walk(lake("f"))) == 2
    storage.remove(lake("f/a=1/big"))
    assert storage.stat(lake("f/a=1/big")) is None


def test_a_missing_bucket_is_named(lake: Callable[[str], str]) -> None:
    """Reading from and writing to a bucket that is not there say so."""
    missing = lake("x").replace("@lake", "@nowhere")
    for what in (lambda: storage.walk(missing), lambda: storage.write(missing, b"x")):
        with pytest.raises(OSError, match="Bucket") as caught:
            what()
        assert storage.explain(caught.value, missing)[0] == "there is no bucket nowhere"
