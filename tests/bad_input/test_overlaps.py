"""Nothing that a command writes is a file that it reads, or another that it writes: by name, dots, links of both kinds."""

from __future__ import annotations

import itertools
import os
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.bad_input.case import CSV
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.helpers.warm import Ended

# Where a command writes that a user can choose.
WRITTEN = {
    "output": ("run", "config.yaml"),
    "--output": ("run", "config.yaml", "--output", "TARGET"),
    "collect -o": ("collect", "config.yaml", "-o", "TARGET"),
    "report": ("run", "config.yaml"),
    "report -o": ("report", "config.yaml", "-o", "TARGET"),
    "reject_file": ("run", "config.yaml"),
    "ledger": ("run", "config.yaml"),
    "ledger export -o": ("ledger", "export", "config.yaml", "-o", "TARGET"),
    "ledger.db export -o": ("ledger", "export", "out/ledger.db", "-o", "TARGET"),
}
# What a job reads, or has written before.
OTHERS = (
    "in.csv",
    "config.yaml",
    "prompt.txt",
    "messages.yaml",
    "examples.yaml",
    "answer.json",
    "key",
    "ca.pem",
    "out/ledger.db",
    "out/ledger.db.whole",
    "out/out.csv",
    "out/out.csv.manifest.json",
    "report.html",
    "rejected.csv",
)
# The same file, written in another way. A configuration names it by what it is told here.
WAYS: dict[str, Callable[[Path], str]] = {
    "name": str,
    "dots": lambda path: f"{path.parent}/../{path.parent.name}/./{path.name}",
    "symbolic link": lambda path: _linked(path, os.symlink),
    "hard link": lambda path: _linked(path, os.link),
    "a folder's link": lambda path: str(_folder_link(path) / path.name),
}
# What is one of its own, or no file of a job whose ledger alone is named.
ITSELF = {
    "output": {"out/out.csv"},
    "--output": {"out/out.csv"},
    "collect -o": {"out/out.csv"},
    "report": {"report.html"},
    "report -o": {"report.html"},
    "reject_file": {"rejected.csv"},
    "ledger": {"out/ledger.db"},
}
# The last two where what is named is refused before it is compared: by its suffix, or as what is no ledger.
REFUSALS = ("a path of its own", "would read it", "has no suffix that tells its format", "is no ledger")
OF_THE_LEDGER = {"out/ledger.db", "out/ledger.db.whole"}


def _linked(path: Path, link: Callable[[Path, Path], None]) -> str:
    other = path.parent.parent / "links" / f"{link.__name__}{path.suffix or '.csv'}"
    other.parent.mkdir(exist_ok=True)
    link(path, other)
    return str(other)


def _folder_link(path: Path) -> Path:
    link = path.parent.parent / "folder"
    link.symlink_to(path.parent, target_is_directory=True)
    return link


Pair = tuple[str, str, str]


def pairs() -> Iterator[Pair]:
    """Give every way to write, every file it must leave alone, and every way to name that."""
    for written, other, way in itertools.product(WRITTEN, OTHERS, WAYS):
        if written.startswith("ledger.db") and other not in OF_THE_LEDGER:
            continue
        if other not in ITSELF.get(written, ()):
            yield written, other, way


def job(folder: Path, endpoint: BookedEndpoint) -> dict[str, Any]:
    """Write a job that names every kind of file, and give its configuration."""
    texts = {
        "in.csv": CSV.decode() + "3,too,many,cells\n",
        "prompt.txt": "Classify: {{ review }}",
        "messages.yaml": "- {role: user, content: 'Say: {{ review }}'}\n",
        "examples.yaml": "- {user: Good, assistant: pos}\n",
        "answer.json": '{"type": "object", "properties": {"a": {"type": "string"}}}',
        "key": KEY,
        "ca.pem": ssl.DER_cert_to_PEM_cert(ssl.create_default_context().get_ca_certs(binary_form=True)[0]),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return {
        "input": {"path": "in.csv", "csv": {"bad_rows": "reject", "reject_file": "rejected.csv"}},
        "output": "out/out.csv",
        "ledger": "out/ledger.db",
        "report": "report.html",
        "endpoint": {"base_url": endpoint.base_url, "api_key_file": "key", "ca_file": "ca.pem"},
        "steps": [
            {"name": "s", "prompt_file": "prompt.txt", "examples_file": "examples.yaml"},
            {"name": "t", "messages_file": "messages.yaml", "schema": "answer.json"},
        ],
    }


def told(document: dict[str, Any], written: str, target: str) -> dict[str, Any]:
    """Let a configuration write to this target."""
    if written in ("output", "report", "ledger"):
        return {**document, written: target}
    if written == "reject_file":
        return {**document, "input": {"path": "in.csv", "csv": {"bad_rows": "reject", "reject_file": target}}}
    return document


def contents(folder: Path) -> dict[Path, bytes]:
    """Give what all files hold."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("stdout", "stderr")
    }


CHOSEN = [pair for number, pair in enumerate(pairs()) if number % 37 == 0]


@pytest.mark.parametrize("pair", CHOSEN, ids=" ".join)
def test_what_is_written_is_no_other_file_of_the_job(
    pair: Pair, cli: Callable[..., Ended], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """Exit code 2, nothing sent, and every file is as it was."""
    assert not problem(pair, cli, endpoint, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_pair_of_paths_destroys_a_file(
    cli: Callable[..., Ended], endpoint: BookedEndpoint, tmp_path: Path
) -> None:
    """The same of all pairs."""
    found = {pair: said for pair in pairs() if (said := problem(pair, cli, endpoint, tmp_path))}
    assert found == {}


def problem(pair: Pair, cli: Callable[..., Ended], endpoint: BookedEndpoint, tmp_path: Path) -> str:
    """Run a job that has finished once with one path changed; give what is wrong with what came of it."""
    written, other, way = pair
    folder = tmp_path / f"{written}-{other}-{way}".replace("/", "_").replace(" ", "_") / "job"
    folder.mkdir(parents=True)
    document = job(folder, endpoint)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    assert cli("run", config, "-q").code in (0, 3)
    target = WAYS[way](folder / other)
    config.write_text(yaml.safe_dump(told(document, written, target)))
    before, sent = contents(folder), len(endpoint.posts)
    words = [folder / word if word in ("config.yaml", "out/ledger.db") else word for word in WRITTEN[written]]
    done = cli(*(target if word == "TARGET" else word for word in words))
    changed = [path.name for path in before if contents(folder).get(path) != before[path]]
    refused = done.code == 2 and any(said in done.err for said in REFUSALS)
    if not refused or changed or len(endpoint.posts) != sent or "Traceback" in done.err:
        return f"{done.code}, changed {changed}, {len(endpoint.posts) - sent} sent: {done.err.strip()[-300:]}"
    return ""
