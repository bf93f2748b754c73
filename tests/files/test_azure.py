"""Azure Blob Storage, on Microsoft's own emulator: the same as any other store, and never half an object."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import fs
from pyarrow import parquet as pq

from enrich.base.location import ObjectUrl
from enrich.errors import ConfigError, OutputError
from enrich.files import storage
from tests.helpers.chaos import place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended

ACCOUNT = "devstoreaccount1"
KEY = (  # of every emulator in the world, as documented
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
AZURITE = shutil.which("azurite-blob")
needs_azurite = pytest.mark.skipif(
    AZURITE is None, reason="there is no Azurite (npm install --global azurite)"
)


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)


@pytest.fixture(scope="module")
def options() -> Iterator[str]:
    """The options of a URL that lead to an emulator with a container `lake`."""
    assert AZURITE is not None
    command = [
        AZURITE,
        "--blobPort",
        "0",
        "--inMemoryPersistence",
        "--skipApiVersionCheck",
        "--disableTelemetry",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        told = iter(process.stdout.readline, "")
        port = next(
            found[1] for line in told if (found := re.search(r"listens on http://[\d.]+:(\d+)", line))
        )
        there = f"127.0.0.1:{port}"
        kinds = ("blob", "dfs")
        given: dict[str, Any] = {f"{kind}_storage_authority": there for kind in kinds}
        given |= {f"{kind}_storage_scheme": "http" for kind in kinds}
        fs.AzureFileSystem(ACCOUNT, account_key=KEY, **given).create_dir("lake")
        yield "&".join(f"{name}={value}" for name, value in given.items())
        process.kill()


@needs_azurite
def test_a_run_from_container_to_container(
    cli: Callable[..., Ended], tmp_path: Path, endpoint: BookedEndpoint, options: str
) -> None:
    """Input in partitions, output and report in Azure; the second run sends nothing, and the key is nowhere."""
    for day in (1, 2):
        pq.write_table(pa.table({"t": [f"a{day}", f"b{day}"]}), tmp_path / "x.parquet")
        storage.put(f"az://lake/in/day={day}/x.parquet?{options}", tmp_path / "x.parquet")
    out = f"abfs://lake/out/o.parquet?{options}"
    document = {
        "input": f"az://lake/in?{options}",
        "output": out,
        "report": f"az://lake/out/r.html?{options}",
        "steps": [{"name": "s", "prompt": "{{ t }}"}],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    there = place(endpoint) | {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": KEY}
    for _ in range(2):
        ended = cli("run", "config.yaml", XDG_STATE_HOME=str(tmp_path / "state"), **there)
        assert ended.code == 0, ended.err
        assert KEY not in ended.out + ended.err
    assert len(endpoint.posts) == 4
    with storage.open_file(out) as file:
        table = pq.read_table(file)
    assert table.column("t").to_pylist() == ["a1", "b1", "a2", "b2"]
    assert table.column("day").to_pylist() == [1, 1, 2, 2]
    assert b"</html>" in (storage.read(f"az://lake/out/r.html?{options}") or b"")
    assert len(storage.walk(f"az://lake/out?{options}")) == 2


KILLED = """
import os, sys
from azure.storage.blob import BlobClient
from enrich.files import storage
whole = os.urandom(30 << 20)

class Killing:
    def __init__(self): self.left = whole
    def __len__(self): return len(whole)
    def read(self, size):
        if len(self.left) < len(whole) - (20 << 20): os.kill(os.getpid(), 9)
        part, self.left = self.left[:size], self.left[size:]
        return part

from enrich.files import azure
azure.upload(storage.ObjectUrl.parse(sys.argv[1]), Killing(), "text/plain")
"""


@needs_azurite
def test_a_process_killed_while_it_uploads_leaves_the_old_object(options: str) -> None:
    """SIGKILL when half of the parts have arrived: the object is what it was before."""
    url = f"az://lake/killed/x?{options}"
    storage.write(url, b"old")
    assert subprocess.run([sys.executable, "-c", KILLED, url], check=False).returncode == -9
    assert storage.read(url) == b"old"
    missing = f"az://lake/killed/new?{options}"
    assert subprocess.run([sys.executable, "-c", KILLED, missing], check=False).returncode == -9
    assert storage.stat(missing) is None


@needs_azurite
def test_objects_are_told_apart(options: str) -> None:
    """Two contents of one length differ in their version; a removed object is gone."""
    url = f"az://lake/told/x?{options}"
    storage.write(url, b"one")
    first = storage.stat(url)
    storage.write(url, b"two")
    second = storage.stat(url)
    assert first is not None
    assert second is not None
    assert first.version != second.version
    storage.remove(url)
    assert storage.stat(url) is None


@needs_azurite
def test_problems_are_put_into_words(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing container and a wrong key say what they are, and what to type."""
    missing = f"az://nowhere/x?{options}"
    with pytest.raises(OSError, match="container") as caught:
        storage.write(missing, b"x")
    assert storage.explain(caught.value, missing)[0] == "there is no bucket nowhere"
    monkeypatch.setenv("AZURE_STORAGE_KEY", "AAAA")
    with pytest.raises(OSError, match="authenticate") as caught:
        storage.write(f"az://lake/x?{options}", b"x")
    problem, hint, passes = storage.explain(caught.value, missing)
    assert problem.startswith("access denied")
    assert "az login" in hint
    assert not passes


def test_an_account_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an account in the URL or the environment, and with an option nobody knows, there is a hint."""
    with pytest.raises(ConfigError, match="option `colour`"):
        storage.stat("az://c/x?colour=red")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT")
    with pytest.raises(ConfigError, match="names no storage account") as caught:
        storage.stat("az://nobody/x")
    assert "abfs://container@account" in caught.value.hint


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing without the extra names the line that installs it."""
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(OutputError, match="without Azure's library") as caught:
        storage.write("az://c/x", b"x")
    assert "beatra-enrich[azure]" in caught.value.hint
    assert os.environ["AZURE_STORAGE_ACCOUNT"] == ACCOUNT
    assert ObjectUrl.parse("abfs://c@acct.dfs.core.windows.net/a/b").path == "c/a/b"
