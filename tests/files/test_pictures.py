"""What a picture is stands in its bytes; other bytes are another picture."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.files.pictures import PictureError, content, look
from tests.helpers.pictures import GIF, JPEG, PDF, WEBP, png

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "image/png": png(1),
    "image/jpeg": JPEG,
    "image/gif": GIF,
    "image/webp": WEBP,
    "application/pdf": PDF,
}


@pytest.mark.parametrize(("kind", "raw"), KINDS.items())
def test_the_type_is_told_from_the_bytes(tmp_path: Path, kind: str, raw: bytes) -> None:
    """Whatever a file is called."""
    (tmp_path / "a.bin").write_bytes(raw)
    picture = look(str(tmp_path / "a.bin"), len(raw))
    assert (picture.kind, picture.size, picture.digest) == (kind, len(raw), hashlib.sha256(raw).hexdigest())
    assert content(picture) == raw == content(look(raw, len(raw)))


@given(st.binary(max_size=200), st.sampled_from([*KINDS.values(), b""]))
def test_bytes_come_back_as_they_are_or_are_refused(tail: bytes, begin: bytes) -> None:
    """Whatever bytes: they are a picture by their beginning, and then come back whole."""
    raw = begin + tail
    if begin:
        assert content(look(raw, 10_000)) == raw
    elif not tail.startswith(tuple(KINDS.values())):
        with pytest.raises(PictureError, match="image_kind"):
            look(raw, 10_000)


@pytest.mark.parametrize("then", [png(2), png(1, 50), b"", None], ids=["other", "longer", "empty", "gone"])
def test_a_file_that_changed_is_refused(tmp_path: Path, then: bytes | None) -> None:
    """By name, before it is sent."""
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    picture = look(str(path), 1_000)
    if then is None:
        path.unlink()
    else:
        path.write_bytes(then)
    with pytest.raises(PictureError, match=r"image_(changed|missing).*a\.png"):
        content(picture)


def test_no_larger_than_allowed(tmp_path: Path) -> None:
    """One byte more is too much, and little more than that is read."""
    raw = png(1)
    (tmp_path / "a.png").write_bytes(raw)
    assert look(str(tmp_path / "a.png"), len(raw)).size == len(raw)
    for source in (str(tmp_path / "a.png"), raw):
        with pytest.raises(PictureError, match="image_too_large"):
            look(source, len(raw) - 1)


@pytest.mark.parametrize(
    "source",
    [
        "a\0b.png",
        "x" * 5_000,
        "data:image/png;base64,%%%",
        "gopher://host/a.png",
        "http://127.0.0.1:1/a.png",
        "http://[bad/a.png",
        "ftp://127.0.0.1/a.png",
        "file://host/a.png",
    ],
)
def test_what_cannot_be_read_is_said_in_words(source: str) -> None:
    """Never another exception, whatever a cell holds."""
    with pytest.raises(PictureError) as caught:
        look(source, 1_000)
    assert caught.value.code in ("image_missing", "image_unreadable")
