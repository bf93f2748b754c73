"""The container: its file keeps to the linter's rules, copies no secret, and what it builds runs where nothing can be written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from enrich.config import load_config

if TYPE_CHECKING:
    from tests.helpers.postgres import Server

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "container"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
BUILT = "/opt/beatra-enrich"
STRANGER = "10001"  # the user of the image


def test_the_linter_has_nothing_to_say() -> None:
    """By the rules of hadolint."""
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_only_what_is_copied_gets_into_the_build() -> None:
    """A key, a ledger or data beside the sources never reach a layer."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    taken = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for name in line.split()
    }
    assert "*" in lines
    assert copied == taken
    assert all((ROOT / name).exists() for name in copied)


def test_it_runs_as_nobody_and_names_no_key() -> None:
    """The last user is a number that owns nothing, and no variable or argument holds a secret."""
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE)[-1] == f"{STRANGER}:{STRANGER}"
    assert not re.search(r"(ENV|ARG).*(KEY|PASSWORD|TOKEN)", DOCKERFILE)


def test_the_compose_example_is_whole() -> None:
    """Every service, secret and volume that is named is there; the job is one, and its secrets are never committed."""
    compose = yaml.safe_load((EXAMPLE / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    for service in services.values():
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        assert set(service.get("depends_on", ())) <= set(services)
    assert services["enrich"]["read_only"] is True
    assert (EXAMPLE / services["enrich"]["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    config = load_config(EXAMPLE / services["enrich"]["command"][1])
    assert config.ledger_location().startswith("postgresql://enrich@ledger/")
    assert str(config.endpoint.api_key_file) == "/run/secrets/key"
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for secret in compose["secrets"].values():
        assert f"/examples/container/{Path(secret['file']).name}" in ignored


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the file's first part builds, by the commands that stand in it, from nothing but what it copies."""
    folder = tmp_path_factory.mktemp("container")
    folder.chmod(0o755)
    source, target = folder / "src", folder / "built"
    source.mkdir()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for name in line.split():
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", DOCKERFILE, re.MULTILINE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in re.findall(r"^RUN ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE):
        script = command.replace("\\\n", " ").replace(BUILT, str(target))
        given = {**os.environ, "EXTRAS": extras, "PATH": path}
        done = subprocess.run(
            ["sh", "-ec", script], cwd=source, env=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs Linux and root, as a builder has"
)
def test_what_is_built_runs_on_a_read_only_system(
    built: Path, tmp_path: Path, postgres_server: Server
) -> None:
    """As a stranger without capabilities, with one folder to write to: rows are asked once, the exit code is the job's."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    work = tmp_path / "work"
    shutil.copytree(EXAMPLE, work)
    for path in (work, *work.rglob("*")):
        os.chown(path, int(STRANGER), int(STRANGER))
    ledger = postgres_server.create("contained")
    given = [
        "run",
        "job.yaml",
        "--json",
        "--set",
        f"ledger={ledger}",
        "--set",
        "endpoint={base_url: sandbox}",
    ]
    first = contained(built, work, *given)
    assert (first["exit_code"], first.get("ok"), first.get("requests")) == (0, 3, 3), first
    again = contained(built, work, *given, "--force")
    assert (again["exit_code"], again["ok"], again["requests"]) == (0, 3, 0), again
    assert contained(built, work, "run", "nothing.yaml")["exit_code"] == 2
    assert (work / "out" / "reviews.parquet").stat().st_uid == int(STRANGER)


def contained(built: Path, work: Path, *arguments: str) -> dict[str, Any]:
    """Run the program where only one folder and an empty one for scratch can be written to; gives the summary."""
    script = f"""
        mount --bind / /
        mount --bind {work} {work}
        {_open_python()}
        mount -t tmpfs tmpfs /dev/shm
        mount -o remount,ro,bind /
        cd {work}
        exec env -i PATH={built}/bin TMPDIR=/dev/shm {shutil.which("setpriv")} --reuid {STRANGER} --regid {STRANGER} \
            --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs {built}/bin/beatra-enrich "$@"
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    told = json.loads(done.stdout) if done.stdout else {}
    return {**told, "exit_code": done.returncode, "stderr": done.stderr}


def _open_python() -> str:
    """Give the commands that show this Python to everybody, where it lies in a folder that is closed to others."""
    prefix = Path(sys.base_prefix)
    closed = [folder for folder in prefix.parents if not folder.stat().st_mode & 0o001]
    if not closed:
        return ""
    return (
        f"mount --bind {prefix} /mnt && mount -t tmpfs -o mode=755 tmpfs {closed[-1]} && "
        f"mkdir -p {prefix} && mount --bind /mnt {prefix}"
    )
