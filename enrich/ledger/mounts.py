"""Where a ledger may lie: not on a file system that machines share, where SQLite cannot keep its promises, nor hidden from its user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from enrich.errors import LedgerError

# WAL needs memory that all its users share, so one machine; and POSIX locks and fsync that hold. Over a network one or
# the other fails silently, and answers that were paid for are lost. Not listed because they serve one machine and keep
# both promises: overlay (containers), virtiofs (virtual machines; also how Docker on a Mac shows its folders), tmpfs,
# and FUSE file systems over local disks. A FUSE file system is known by its subtype, or else by the mount's source.
NETWORK: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "davfs", "pvfs2", "orangefs"),
        *("ceph", "ceph-fuse", "glusterfs", "lustre", "gpfs", "beegfs", "wekafs", "panfs", "mfs", "moosefs"),
        *("lizardfs", "seaweedfs", "juicefs", "JuiceFS", "alluxio-fuse", "cvmfs2", "sshfs", "curlftpfs"),
        *("rclone", "s3fs", "goofys", "gcsfuse", "mountpoint-s3", "blobfuse", "blobfuse2", "davfs2", "hdfs"),
    }
)
# In these the kernel shows itself: to read a file there may take for ever, and nothing is kept.
KERNEL: Final = frozenset(
    {
        *("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs"),
        *("configfs", "pstore", "bpf", "mqueue", "binfmt_misc", "efivarfs", "fusectl"),
    }
)


def network_type(path: Path, proc: Path = Path("/proc/self")) -> str | None:
    """Give the type of the file system that holds a path, or will hold it, when machines share it; arguments as of `type_of`."""
    kind, source = type_of(path, proc)
    name = kind.removeprefix("fuse.")
    return kind if name in NETWORK or (kind == "fuse" and source in NETWORK) else None


def kernel_type(path: Path, proc: Path = Path("/proc/self")) -> str | None:
    """Give the type of the file system that holds a path, when that is one in which the kernel shows itself."""
    kind, _ = type_of(path, proc)
    return kind if kind in KERNEL else None


def type_of(path: Path, proc: Path) -> tuple[str, str]:
    """Give type and source of the file system that holds a path, or will hold it.

    Args:
        path: it need not be there: then the nearest folder above it counts.
        proc: where the kernel tells of this process.

    Returns:
        Such as ``nfs4`` or ``fuse.sshfs``; nothing where the kernel does not tell: only Linux is asked.
    """
    folder = next(above for above in (path, *path.parents) if os.access(above, os.F_OK))
    try:
        mount = _mount_of(folder, proc)
        lines = (proc / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return "", ""
    found = (_type_and_source(line) for line in lines if line.partition(" ")[0] == mount)
    return next(found, ("", ""))


def _mount_of(folder: Path, proc: Path) -> str:
    """Give the number of the mount that a path lies in: right for bind mounts and for mounts over others too."""
    descriptor = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY))
    try:
        told = (proc / "fdinfo" / str(descriptor)).read_text(encoding="ascii")
    finally:
        os.close(descriptor)
    fields = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    return fields.get("mnt_id", "").strip()


def _type_and_source(line: str) -> tuple[str, str]:
    """Take type and source from a line of mountinfo: they stand behind a lone dash; blanks in names are escaped."""
    kind, source, *_ = [*line.partition(" - ")[2].split(" "), "", ""]
    return kind, source


def unreadable(location: object, number: int) -> LedgerError:
    """Say that this user may not read a ledger, with the system's number of the reason."""
    return LedgerError(
        f"the ledger {location} cannot be read: {os.strerror(number)}",
        hint="a ledger is made for its owner alone: ask as that user, or have it made readable.",
    )
