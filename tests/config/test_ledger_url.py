"""Passwords in a ledger's URL, held against libpq's own reading of it."""

from __future__ import annotations

import multiprocessing

import psycopg
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from enrich.config.ledger_url import holds_password, without_password

SECRET = "hUsh"
pieces = st.lists(
    st.sampled_from(
        [*":@/?=&%#[],. ab1", "%40", "user=", "password=", "pass%77ord=", "sslpassword=", "host="]
    ),
    max_size=8,
).map("".join)
safe = st.text("abcXYZ019-_.~", min_size=1, max_size=8)


def passwords(url: str) -> list[str]:
    """Give the passwords that libpq finds in a URL; none where it refuses the URL."""
    try:
        parts = conninfo_to_dict(url)
    except (psycopg.Error, UnicodeDecodeError):
        return []
    return [str(value) for name, value in parts.items() if name.endswith("password") and value]


@given(pieces, pieces)
def test_what_libpq_takes_for_a_password_is_not_shown(before: str, after: str) -> None:
    """However a URL is put together: what would be sent as a password is cut out, and told of."""
    url = f"postgresql://{before}{SECRET}{after}"
    if any(SECRET in password for password in passwords(url)):
        assert SECRET not in without_password(url)
        assert holds_password(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hUsh@h/d",
        "postgresql://h/d?password=hUsh",
        "postgresql://h/d?user=me&password=hUsh&sslmode=require",
        "postgresql://h/d?pass%77ord=hUsh",
        "postgresql://h/d?sslpassword=hUsh",
        "postgresql://u:?x=hUsh@h@",
    ],
)
def test_passwords_are_found(url: str) -> None:
    """In the place before the host as among the options, also when a letter of the option's name is escaped."""
    assert any(SECRET in password for password in passwords(url))
    assert holds_password(url)
    assert SECRET not in without_password(url)


@given(safe, safe, st.integers(1, 65_535), safe, st.none() | safe)
def test_without_its_password_it_is_the_same_place(
    user: str, host: str, port: int, database: str, password: str | None
) -> None:
    """The URL that is shown names the same user, host, port and database, and can be pasted."""
    assume(not host.startswith("."))
    secret = "" if password is None else f":{password}"
    url = f"postgresql://{user}{secret}@{host}:{port}/{database}"
    shown = without_password(url)
    given_parts = conninfo_to_dict(url)
    given_parts.pop("password", None)
    assert conninfo_to_dict(shown) == given_parts
    assert holds_password(url) == (password is not None)
    assert not holds_password(shown)
    assert without_password(shown) == shown


@pytest.mark.parametrize(
    "location", ["/a/ledger.db", "ledger:me@x.db", "", ".beatra/p=1?password=x.db", "host=x password=y"]
)
def test_a_path_stays(location: str) -> None:
    """A file has no password."""
    assert without_password(location) == location
    assert not holds_password(location)


def test_hosts_of_a_cluster_stay() -> None:
    """Several hosts, numbered addresses and ports are shown as they are."""
    url = "postgresql://me:hUsh@a:1,[::1]:2,10.0.0.1/d"
    assert without_password(url) == "postgresql://me@a:1,[::1]:2,10.0.0.1/d"


def test_a_long_query_is_read_at_once() -> None:
    """A URL that fits no form is found out at once, however many `=` it holds."""
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=holds_password, args=("postgresql://h/d?" + "a=" * 200 + "&&",))
    worker.start()
    worker.join(20)
    if worker.is_alive():
        worker.kill()
    assert worker.exitcode == 0
