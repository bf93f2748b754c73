"""Files put in place whole: what a dead run left is swept, what a living one writes is not, and a manifest is never a wrong one."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from enrich.config import MANIFEST_SUFFIX
from enrich.files.placing import Temporary, replace_with_sidecar, sidecar_of, sweep, temporary_path

DIES = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from enrich.files.placing import Temporary
Temporary(Path(sys.argv[2])).path.write_text("half")
"""
ROOT = str(Path(__file__).parents[2])


def names(folder: Path) -> set[str]:
    """Give what lies in a folder."""
    return {path.name for path in folder.iterdir()}


def test_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    """A temporary file that nobody locks any more goes; one of a living run, and of another output, stays."""
    target = tmp_path / "out.csv"
    subprocess.run([sys.executable, "-c", DIES, ROOT, str(target)], check=True)
    dead = names(tmp_path)
    living, others = Temporary(target), temporary_path(tmp_path / "other.csv")
    others.touch()
    assert len(dead) == 1
    sweep(target)
    assert names(tmp_path) == {living.path.name, others.name}
    living.discard()
    assert names(tmp_path) == {others.name}


def test_only_names_of_ours_are_swept(tmp_path: Path) -> None:
    """A file of the user's that looks alike stays, and a link is not followed."""
    target = tmp_path / "out.csv"
    (tmp_path / ".out.csv.0123456789abcdef.tmp.bak").touch()
    (tmp_path / ".out.csv.short.tmp").touch()
    (tmp_path / "precious").write_text("x", encoding="utf-8")
    (tmp_path / ".out.csv.0123456789abcdef.tmp").symlink_to("precious")
    before = names(tmp_path)
    sweep(target)
    assert names(tmp_path) == before
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "x"


def test_the_permissions_of_what_is_replaced_are_kept(tmp_path: Path) -> None:
    """A new file has the old one's mode, unless it is private: then nobody else reads it."""
    for private, mode in ((False, 0o604), (True, 0o600)):
        target = tmp_path / f"out-{private}"
        target.write_text("old", encoding="utf-8")
        target.chmod(0o604)
        temporary = Temporary(target, private=private)
        temporary.path.write_text("new", encoding="utf-8")
        temporary.replace(target)
        temporary.discard()
        assert target.read_text(encoding="utf-8") == "new"
        assert stat.S_IMODE(target.stat().st_mode) == mode
    assert names(tmp_path) == {"out-False", "out-True"}


def test_no_manifest_stands_beside_a_file_that_it_is_not_of(tmp_path: Path) -> None:
    """While a file takes its place its manifest is away: whoever looks in between finds none rather than the old one."""
    target = tmp_path / "out.csv"
    sidecar = target.with_name(target.name + MANIFEST_SUFFIX)
    assert sidecar_of(target) == sidecar
    target.write_text("old", encoding="utf-8")
    sidecar.write_bytes(b"of the old")

    class Watched(Temporary):
        """Looks at the manifest at the moment of the replacement."""

        def replace(self, target: object) -> None:
            """Take the target's place."""
            assert isinstance(target, Path)
            seen.append(sidecar.exists())
            super().replace(target)
            seen.append(sidecar.exists())

    seen: list[bool] = []
    temporary = Watched(target)
    temporary.path.write_text("new", encoding="utf-8")
    replace_with_sidecar(temporary, target, sidecar, b"of the new")
    temporary.discard()
    assert seen == [False, False]
    assert (target.read_text(encoding="utf-8"), sidecar.read_bytes()) == ("new", b"of the new")
    assert names(tmp_path) == {target.name, sidecar.name}


def test_names_beside_a_target_are_hidden_and_ones_own(tmp_path: Path) -> None:
    """No two runs write to one temporary file, and listings do not show it."""
    found = {temporary_path(tmp_path / "out.csv") for _ in range(100)}
    assert len(found) == 100
    assert all(path.name.startswith(".") and path.parent == tmp_path for path in found)
