"""What every page of ours is: one file that needs nothing else, with a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from enrich.base.location import is_url
from enrich.errors import OutputError
from enrich.files import storage
from enrich.report import texts

if TYPE_CHECKING:
    from collections.abc import Callable


def trusted(text: str) -> Markup:
    """Mark a text of ours as one that needs no escaping."""
    return Markup(text)  # noqa: S704  # our own files, and JSON without a `<`


def policy(styles: str, scripts: list[str]) -> str:
    """Give the policy that forbids any network, and any script or style that is not the page's own."""
    hashes = " ".join(_hash(script) for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src {_hash(styles)}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def template(name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """Give a page's template: all that it shows is escaped, and what it names must be there.

    Args:
        name: of the file beside this one.
        filters: further ones than every page has.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": texts.number, "milliseconds": texts.milliseconds, **filters}
    return environment.from_string(asset(name))


def asset(name: str) -> str:
    """Read a file that lies beside this one."""
    return (resources.files("enrich.report") / name).read_text(encoding="utf-8").strip()


def put_in_place(path: str, html: str) -> None:
    """Put the page in its place, whole."""
    if not is_url(path) and Path(path).exists() and not Path(path).is_file():
        raise OutputError(f"the report {path} is no regular file", hint="give another path with -o.")
    try:
        storage.write(
            path if is_url(path) else os.path.realpath(path), html.encode(errors="backslashreplace")
        )
    except OSError as error:
        problem, hint = error.strerror, "give another path with -o."
        if is_url(path):
            problem, hint, _ = storage.explain(error, path)
        raise OutputError(f"the report {path} cannot be written: {problem}", hint=hint) from None
