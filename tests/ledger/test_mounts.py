"""A ledger file is refused on a file system that machines share, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from enrich.errors import LedgerError
from enrich.ledger.mounts import NETWORK, network_type
from enrich.ledger.sqlite import open_ledger
from enrich.ledger.sqlite_file import open_for_reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Ended

needs_mounts = pytest.mark.skipif(
    os.getuid() != 0 or not Path("/dev/fuse").exists() or shutil.which("bindfs") is None,
    reason="mounting needs root, /dev/fuse and bindfs (Debian: apt-get install bindfs)",
)


@contextmanager
def mounted(point: Path, *command: str) -> Iterator[Path]:
    """Mount something while the block runs."""
    point.mkdir(exist_ok=True)
    done = subprocess.run([*command, str(point)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{command[0]} is not allowed here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@needs_mounts
def test_a_run_refuses_a_ledger_on_a_shared_file_system(
    cli: Callable[..., Ended], job: Callable[..., Path], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """On a real FUSE mount that the kernel calls sshfs, also in a folder yet to be made, nothing is sent: exit code 2."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "net", "bindfs", "-o", "subtype=sshfs", str(tmp_path / "disk")) as point:
        config = job(ledger=str(point / "deep" / "ledger.db"))
        ended = cli("run", config, endpoint=endpoint)
        assert ended.code == 2
        assert "fuse.sshfs" in ended.err
        assert "postgresql://" in ended.err
        assert endpoint.posts == []
        assert list((tmp_path / "disk").iterdir()) == []


@needs_mounts
def test_the_mount_counts_that_the_path_lies_in(tmp_path: Path) -> None:
    """Bind mounts, links, blanks in names and mounts over others do not mislead; a local FUSE mount is none."""
    (disk := tmp_path / "disk").mkdir()
    with mounted(tmp_path / "a b\\c", "bindfs", "-o", "subtype=s3fs", str(disk)) as net:
        assert network_type(net / "ledger.db") == "fuse.s3fs"
        (tmp_path / "link").symlink_to(net)
        assert network_type((tmp_path / "link" / "x").resolve()) == "fuse.s3fs"
        assert network_type(tmp_path / "ledger.db") is None
        with mounted(tmp_path / "bound", "mount", "--bind", str(net)) as bound:
            assert network_type(bound / "ledger.db") == "fuse.s3fs"
        with mounted(net, "mount", "-t", "tmpfs", "none"):
            assert network_type(net / "ledger.db") is None
    with mounted(tmp_path / "plain", "bindfs", str(disk)) as local:
        assert network_type(local / "ledger.db") is None


@needs_mounts
def test_a_container_layer_is_local(tmp_path: Path) -> None:
    """An overlay, as containers have it, takes a ledger."""
    for name in ("low", "up", "work", "disk"):
        (tmp_path / name).mkdir()
    with mounted(tmp_path / "disk", "mount", "-t", "tmpfs", "none") as disk:
        (disk / "up").mkdir()
        (disk / "work").mkdir()
        layers = f"lowerdir={tmp_path / 'low'},upperdir={disk / 'up'},workdir={disk / 'work'}"
        with mounted(tmp_path / "merged", "mount", "-t", "overlay", "overlay", "-o", layers) as merged:
            assert network_type(merged / "ledger.db") is None


# Lines as Linux writes them, one per kind of mount; mounts of these kinds cannot be had on a test machine.
LINES = {
    r"88 62 0:51 / /mnt/my\040share rw,relatime shared:29 - nfs4 nas:/export/my\040share rw,vers=4.2": "nfs4",
    r"91 62 0:52 / /mnt/w rw,relatime shared:31 master:2 - cifs //srv/data\134x rw,vers=3.1.1": "cifs",
    r"92 62 0:53 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\134": "9p",
    "93 62 0:54 / /gpfs rw,relatime - gpfs gpfs0 rw": "gpfs",
    "94 62 0:55 / /scratch rw,flock - lustre 10.0.0.1@tcp:/scratch rw,flock": "lustre",
    "95 62 0:56 / /ceph rw - ceph 10.0.0.1:6789:/ rw,name=admin": "ceph",
    "96 62 0:57 / /b rw,nosuid - fuse mountpoint-s3 rw,user_id=0": "fuse",
    "97 62 0:58 / /b rw,nosuid - fuse.gcsfuse bucket rw,user_id=0": "fuse.gcsfuse",
    "98 62 0:59 / /v rw,relatime - virtiofs share rw": None,
    "99 62 0:60 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w": None,
    "62 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw": None,
    "63 1 0:61 / /m rw - fuse.mergerfs a:b rw": None,
    "64 1 0:62 / /m rw - fuse.fuse-overlayfs fuse-overlayfs rw": None,
    "65 1 0:63 / /m rw": None,
}


@pytest.mark.parametrize(("line", "kind"), LINES.items())
def test_what_the_kernel_writes_is_understood(tmp_path: Path, line: str, kind: str | None) -> None:
    """Of every kind of mount the type is found in the kernel's own words, optional fields and escapes included."""
    descriptor = os.open("/", os.O_RDONLY)
    os.close(descriptor)  # the number that is opened next
    (tmp_path / "fdinfo").mkdir()
    told = f"pos:\t0\nflags:\t012100000\nmnt_id:\t{line.partition(' ')[0]}\nino:\t2\n"
    (tmp_path / "fdinfo" / str(descriptor)).write_text(told)
    (tmp_path / "mountinfo").write_text(f"22 62 0:21 / /proc rw,nosuid - proc proc rw\n{line}\n")
    assert network_type(Path("/"), proc=tmp_path) == kind


def test_where_nothing_tells_nothing_is_refused(tmp_path: Path) -> None:
    """Without the kernel's word a ledger is taken anywhere."""
    assert network_type(tmp_path / "x.db", proc=tmp_path / "none") is None
    assert "overlay" not in NETWORK
    assert "virtiofs" not in NETWORK


@pytest.mark.parametrize("path", ["/proc/version", "/proc/none.db", "/sys/kernel/none.db"])
async def test_a_ledger_among_the_systems_own_files_is_refused(path: str) -> None:
    """Some of these would be waited for, for ever: none is opened, to write or to read."""
    with pytest.raises(LedgerError, match="among the system's own files"):
        await open_ledger(path)
    with pytest.raises(LedgerError, match="among the system's own files"):
        await asyncio.to_thread(open_for_reading, Path(path))
