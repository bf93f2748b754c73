"""Small files are read whole; what would block, never ends or is too large is refused, and the refusal says which."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from enrich.base.reading import read_small

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_a_file_up_to_the_bound_is_read_whole(tmp_path: Path, size: int) -> None:
    """The bound itself is not too large; what the system says of the file comes along."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    path.chmod(0o640)
    content, info = read_small(path, 10)
    assert (content, info.st_size, info.st_mode & 0o777) == (b"x" * size, size, 0o640)


def test_one_byte_more_is_too_large(tmp_path: Path) -> None:
    """How large it is, and how large it may be, is said."""
    (tmp_path / "file").write_bytes(b"x" * 1_025)
    with pytest.raises(OSError, match="it has 1,025 bytes; at most 1,024 are read"):
        read_small(tmp_path / "file", 1_024)


def test_a_file_that_lies_about_its_size_is_bounded_too() -> None:
    """Some of the system's files have no size and many bytes: no more than the bound is taken."""
    with pytest.raises(OSError, match="at most 16 are read"):
        read_small("/proc/self/status", 16)


def test_a_pipe_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO, also behind a link, is refused at once."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match="it is a device or pipe, not a file"):
            read_small(tmp_path / name, 10)


def test_other_things_are_no_files(tmp_path: Path) -> None:
    """A folder, a socket, nothing at all and what no path can be each have their own words."""
    with pytest.raises(IsADirectoryError):
        read_small(tmp_path, 10)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="No such device or address"):
            read_small(tmp_path / "socket", 10)
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "nothing", 10)
    with pytest.raises(OSError, match=r"it is no path: .*embedded null (byte|character)"):
        read_small("a\0b", 10)
