"""Places: paths and URLs, taken apart and put together again."""

from __future__ import annotations

import multiprocessing
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.base.location import (
    ANONYMOUS,
    CREDENTIALS,
    STORES,
    ObjectUrl,
    child,
    is_url,
    plain,
    suffixes,
    without_slash,
)

letters = st.characters(codec="utf-8", exclude_characters="\0")
names = st.text(letters.filter(lambda c: c not in "/?"), min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)
keys = st.lists(names, max_size=4).map("/".join)
buckets = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,12}[a-z0-9]", fullmatch=True)
options = st.lists(
    st.tuples(
        st.sampled_from(["region", "scheme", "endpoint_override", "anonymous"]),
        st.text(letters.filter(lambda c: c not in "&?"), max_size=8),
    ).map("=".join),
    max_size=3,
).map("&".join)
urls = st.builds(ObjectUrl, st.sampled_from(STORES), buckets, keys, options)
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(urls)
def test_a_url_is_put_together_as_it_was_taken_apart(url: ObjectUrl) -> None:
    """Whatever a key holds, nothing of it is decoded, cut or taken for an option."""
    assert ObjectUrl.parse(str(url)) == url
    assert plain(str(url)) == str(url)


@given(paths)
def test_a_file_url_is_the_path_that_it_was_made_of(path: str) -> None:
    """Every path's `file://` URL, as Python writes it, names that path again."""
    assert plain(Path(path).as_uri()) == path
    assert plain(Path(path).as_uri().replace("file://", "file://localhost")) == path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///data/part-?.csv", "/data/part-?.csv"),
        ("file:///data/a#b.csv", "/data/a#b.csv"),
        ("file:///data/*.csv?", "/data/*.csv?"),
        ("file:///a%20b;c", "/a b;c"),
        ("file:///", "/"),
    ],
)
def test_nothing_of_a_file_url_is_cut_off(url: str, path: str) -> None:
    """A glob's `?` and a name's `#` stay: cut off, another file would be read in silence."""
    assert plain(url) == path


@pytest.mark.parametrize("url", ["file://", "file://data/x.csv", "file://host/x", "file://localhost"])
def test_a_file_of_another_machine(url: str) -> None:
    """A `file://` URL that names no file here is refused, with the form that does."""
    with pytest.raises(ValueError, match="file:///folder/name"):
        plain(url)


@pytest.mark.parametrize("location", ["a.csv", "/a/b.csv", "", "C:\\a.csv", "file:/x", "~/x", "a b?*"])
def test_a_path_stays(location: str) -> None:
    """What is no URL is a path, and is taken as it stands."""
    assert not is_url(location)
    assert plain(location) == location


@settings(max_examples=50)
@given(urls, names)
def test_a_folder_and_what_lies_in_it(url: ObjectUrl, name: str) -> None:
    """A name within a folder has that name, and a name beside it lies in the same folder."""
    inside = ObjectUrl.parse(child(str(url), name))
    assert inside.name == name
    assert (inside.scheme, inside.bucket, inside.options) == (url.scheme, url.bucket, url.options)
    assert inside.key.removesuffix(name).rstrip("/") == url.key.rstrip("/")
    other = inside.beside("other")
    assert str(inside.at("x").beside(name)) == child(str(url.at("")), name)
    assert other.beside(name) == inside


@settings(max_examples=50)
@given(paths, names)
def test_a_folder_of_this_machine_and_what_lies_in_it(path: str, name: str) -> None:
    """Of a path it is as pathlib says."""
    assert child(path, name) == str(PurePosixPath(path, name))


@settings(max_examples=50)
@given(st.one_of(paths, urls.filter(lambda url: url.key != "").map(str)), st.integers(0, 3))
def test_slashes_at_the_end_mark_a_folder(location: str, slashes: int) -> None:
    """They are taken off, however many there are, before a URL's options; what is left names the same place."""
    bare = without_slash(location)
    base, mark, given_options = bare.partition("?") if is_url(bare) else (bare, "", "")
    marked = f"{base}{'/' * slashes}{mark}{given_options}"
    assert without_slash(marked) == bare
    assert without_slash(bare) == bare


@pytest.mark.parametrize(
    ("location", "bare"),
    [
        ("/", "/"),
        ("//", "/"),
        ("", ""),
        ("out/", "out"),
        ("file:///", "file:///"),
        ("file:///out/", "file:///out"),
        ("s3://b/", "s3://b/"),
        ("s3://b/k/?region=x", "s3://b/k?region=x"),
    ],
)
def test_what_is_left_without_slashes(location: str, bare: str) -> None:
    """The root stays the root, a bucket stays a bucket."""
    assert without_slash(location) == bare


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hush-hush@b/k",
        "s3://hush-hush@b/k",
        "gs://hush-hush@b/k",
        "az://c:hush-hush@account.blob.core.windows.net/k",
        "s3://b/k?access_key=hush-hush",
        "s3://b/k?region=x&secret_key=hush-hush",
        "s3://b/k?session_token=hush-hush&region=x",
        "az://c/k?sv=2024&sig=hush-hush",
        "s3://b/k?PASSWORD=hush-hush",
    ],
)
def test_a_credential_in_a_url_is_refused_unseen(url: str) -> None:
    """It would come into logs and reports: the error says how to give it, and does not repeat it."""
    with pytest.raises(ValueError, match="carries a credential") as caught:
        plain(url)
    assert "hush-hush" not in str(caught.value)
    assert CREDENTIALS[url.partition(":")[0]] in str(caught.value)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("s3://b/a/k.csv", "b/a/k.csv"),
        ("s3://b//a/k.csv", "b/a/k.csv"),
        ("s3://b", "b"),
        (f"gs://{ANONYMOUS}@b/k", "b/k"),
        ("az://container@account.blob.core.windows.net/k", "container/k"),
        ("abfs://container/k/", "container/k"),
        ("s3://b/k?region=eu", "b/k"),
    ],
)
def test_arrow_s_path(url: str, path: str) -> None:
    """Bucket and key, without who asks, without the account, without options."""
    assert ObjectUrl.parse(url).path == path


@pytest.mark.parametrize("url", ["http://x/y", "hdfs://n/x", "S3://b/k", "://x"])
def test_no_store_of_ours(url: str) -> None:
    """Another scheme is refused with those there are."""
    with pytest.raises(ValueError, match="s3://, gs://, az://, abfs://"):
        plain(url)


@pytest.mark.parametrize("url", ["s3://", "s3:///k", "gs://?region=x"])
def test_no_bucket(url: str) -> None:
    """A URL without a bucket is refused with the form it should have."""
    with pytest.raises(ValueError, match=r"names no bucket; write (s3|gs)://bucket/key"):
        plain(url)


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("a/B.CSV.GZ", [".csv", ".gz"]),
        ("s3://b.c/d.e/F.Parquet", [".parquet"]),
        ("s3://b/d.e/plain?endpoint_override=h.x:9000", []),
        ("/a.b/c", []),
    ],
)
def test_suffixes(location: str, found: list[str]) -> None:
    """Of the last part alone, in lower case, without a URL's options."""
    assert suffixes(location) == found


def test_a_glob_of_hive_folders_is_told_from_options_at_once() -> None:
    """However many `key=` stand behind a `?`, telling options from a glob takes no time that grows with their power."""
    url = "s3://bucket/data/?y=1" + "/month=05/day=02" * 20 + "/part-?.csv"
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=plain, args=(url,))
    worker.start()
    worker.join(20)
    if worker.is_alive():
        worker.kill()
    assert worker.exitcode == 0
