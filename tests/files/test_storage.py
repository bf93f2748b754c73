"""Objects in a store are found, identified, read and put in place like files: whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.base.location import ObjectUrl, is_url, plain, suffixes
from enrich.errors import ConfigError, InputError
from enrich.files import storage
from enrich.files.input_files import find_files
from tests.helpers.s3 import BUCKET, CREDENTIALS, S3, SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    """An S3 server."""
    with pytest.MonkeyPatch.context() as patch, S3() as server:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def s3(server: S3) -> S3:
    """The server, letting everything through."""
    server.calm()
    return server


# --- URLs as text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "options"),
    [
        ("s3://b/a/c.csv", "a/c.csv", ""),
        ("s3://b/part-?.csv", "part-?.csv", ""),
        ("s3://b/part-?.csv?region=eu-west-1", "part-?.csv", "region=eu-west-1"),
        (
            "s3://b/a%20b/day=1/?endpoint_override=h:9&scheme=http",
            "a%20b/day=1/",
            "endpoint_override=h:9&scheme=http",
        ),
        ("gs://b", "", ""),
        ("gs://anonymous@b/k", "k", ""),
        ("az://c/x=1/y z.parquet", "x=1/y z.parquet", ""),
    ],
)
def test_urls_are_taken_apart(text: str, key: str, options: str) -> None:
    """A key is as it stands; options begin at a `?` that names begin behind, any other belongs to a glob."""
    url = ObjectUrl.parse(text)
    assert (url.key, url.options) == (key, options)
    assert ObjectUrl.parse(str(url)) == url
    assert plain(plain(text)) == plain(text)


@given(
    scheme=st.sampled_from(["s3", "gs", "az", "abfs"]),
    bucket=st.from_regex(r"[a-z0-9][a-z0-9.-]{1,20}", fullmatch=True),
    key=st.text(st.characters(exclude_characters="?", exclude_categories=["Cs"])).map(
        lambda key: key.lstrip("/")
    ),
    options=st.from_regex(r"(region=[a-z0-9:./%-]{1,12}(&scheme=https?)?)?", fullmatch=True),
)
def test_a_url_is_the_sum_of_its_parts(scheme: str, bucket: str, key: str, options: str) -> None:
    """Whatever a key holds, a URL written out and taken apart again is the same."""
    url = ObjectUrl(scheme, bucket, key, options)
    assert ObjectUrl.parse(str(url)) == url
    assert plain(str(url)) == str(url)


def test_names_beside_keep_the_way_there() -> None:
    """A name beside an object keeps bucket and options; suffixes do not see the options."""
    url = "s3://b/a/c.csv.GZ?endpoint_override=h.x:9"
    assert str(ObjectUrl.parse(url).beside("d.html")) == "s3://b/a/d.html?endpoint_override=h.x:9"
    assert suffixes(url) == [".csv", ".gz"]
    assert suffixes("dir.d/c.CSV") == [".csv"]


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIATEST:{SECRET}@b/k",
        f"s3://b/k?secret_key={SECRET}",
        f"abfs://:{SECRET}@account.dfs.core.windows.net/c/k",
        f"az://c/k?sig={SECRET}&region=x",
        f"gs://{SECRET}@b/k",
        f"az://c/k?client_secret={SECRET}",
    ],
)
def test_credentials_in_urls_are_refused_and_not_repeated(url: str) -> None:
    """A URL that carries a credential is refused, and the message does not carry it on."""
    with pytest.raises(ValueError, match="carries a credential") as caught:
        plain(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://host/x.csv", "http:// is no place"),
        ("S3://b/x", "S3:// is no place"),
        ("s3:///x", "names no bucket"),
        ("file://host/x", "names no file of this machine"),
        ("file://", "names no file of this machine"),
    ],
)
def test_other_urls_are_refused(url: str, problem: str) -> None:
    """What is no store, names no bucket or another machine is refused plainly."""
    with pytest.raises(ValueError, match=problem):
        plain(url)


def test_a_file_url_is_its_path() -> None:
    """A file URL becomes the path it stands for, a path stays."""
    assert plain("file:///data/a%20b.csv") == "/data/a b.csv"
    assert plain("file://localhost/data/a.csv") == "/data/a.csv"
    assert plain("data/a.csv") == "data/a.csv"
    assert not is_url("data/a.csv")


# --- finding ---------------------------------------------------------------------------------------------

KEYS = (
    "f/day=1/a.csv",
    "f/day=1/b.txt",
    "f/day=2/a b.csv",
    "f/day=2/.a.csv",
    "f/day=%C3%A4/a.csv",
    "f/_temporary/a.csv",
    "f/deep/er/a.csv",
    "f/_a.csv",
    "f/a[1].csv",
)


@pytest.mark.parametrize(
    "pattern",
    [
        "f/*",
        "f/day=*",
        "f/day=?/*.csv",
        "f/**/*.csv",
        "f/**",
        "f/*/*.csv",
        "f/_*.csv",
        "f/d*/e?/a.csv",
        "f/x*",
    ],
)
def test_globs_find_what_they_find_on_disk(s3: S3, tmp_path: Path, pattern: str) -> None:
    """A glob over objects matches what the same glob matches over files, with the same partitions."""
    for key in KEYS:
        s3.put(key, b"x")
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(b"x")

    def found(path: str, cut: int) -> list[tuple[str, object]] | str:
        try:
            files = find_files(path)
        except InputError as error:
            return error.message.split(" ")[0]
        return [(plain(file.path).partition("?endpoint")[0][cut:], file.partition) for file in files]

    there = found(s3.url(pattern), len(f"s3://{BUCKET}/"))
    here = found(f"{tmp_path}/{pattern}", len(f"{tmp_path}/"))
    same = isinstance(here, str) and isinstance(there, str)  # both find nothing, or partitions that differ
    assert same or there == here


def test_a_folder_a_name_with_wildcards_and_one_object(s3: S3) -> None:
    """A URL may name one object, also one whose name looks like a glob, or a folder with its slash or without."""
    for key in KEYS:
        s3.put(key, b"x")
    assert [file.path for file in find_files(s3.url("f/a[1].csv"))] == [s3.url("f/a[1].csv")]
    for folder in ("f/day=2", "f/day=2/"):
        assert [file.path for file in find_files(s3.url(folder))] == [s3.url("f/day=2/a b.csv")]


@pytest.mark.slow
def test_more_objects_than_a_page(s3: S3) -> None:
    """A folder of more objects than one listing tells is found whole."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: s3.put(f"many/{number:05}", b"x"), range(1_005)))
    assert len(storage.walk(s3.url("many"))) == 1_005


def test_stat_tells_contents_apart(s3: S3) -> None:
    """Two contents of one length, written within a second, differ in their version."""
    first = storage.stat(s3.put("s/x", b"one"))
    second = storage.stat(s3.put("s/x", b"two"))
    assert first is not None
    assert second is not None
    assert (first.size, second.size) == (3, 3)
    assert first.version != second.version
    assert storage.stat(s3.url("s")) is None
    assert storage.stat(s3.url("s/missing")) is None


def test_files_are_told_and_written_the_same_way(tmp_path: Path) -> None:
    """Of a file there is its size and time; it is written whole, read, and removed more than once."""
    path = str(tmp_path / "new" / "x.json")
    assert storage.stat(path) is None
    assert storage.read(path) is None
    storage.write(path, b"{}")
    told = storage.stat(path)
    assert told is not None
    assert (told.location, told.size) == (path, 2)
    assert storage.read(path) == b"{}"
    storage.remove(path)
    storage.remove(path)
    assert list((tmp_path / "new").iterdir()) == []


# --- writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, (25 << 20) + 1])
def test_a_file_becomes_an_object(s3: S3, tmp_path: Path, size: int) -> None:
    """An upload gives the file's bytes, in one part or several, with the kind that its suffix says."""
    (tmp_path / "x").write_bytes(content := os.urandom(size))
    storage.put(s3.url("w/page.html"), tmp_path / "x")
    assert s3.get("w/page.html") == content
    assert storage.read(s3.url("w/page.html")) == content
    with storage.open_file(s3.url("w/page.html")) as file:
        assert file.metadata()["Content-Type"] == b"text/html"
    storage.remove(s3.url("w/page.html"))
    storage.remove(s3.url("w/page.html"))
    assert s3.keys("w/") == []


def test_a_part_that_is_refused_leaves_what_was_there(s3: S3, tmp_path: Path) -> None:
    """When a part of an upload fails for good, the old object stays, and no later close publishes the new one."""
    s3.put("w/kept", b"old")
    (tmp_path / "x").write_bytes(bytes(25 << 20))
    s3.refuse = lambda _, path, __: (403, "AccessDenied") if "partNumber=2" in path else None
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        storage.put(s3.url("w/kept"), tmp_path / "x")
    assert s3.get("w/kept") == b"old"
    assert s3.counted("POST", "uploadId=") == 0


def test_errors_that_pass_are_tried_again(s3: S3, tmp_path: Path) -> None:
    """A store that is briefly out of breath gets the same part once more."""
    failures = iter([(503, "SlowDown"), (500, "InternalError")])
    s3.refuse = lambda _, path, __: next(failures, None) if "partNumber" in path else None
    (tmp_path / "x").write_bytes(b"y" * (11 << 20))
    storage.put(s3.url("w/again"), tmp_path / "x")
    assert s3.get("w/again") == b"y" * (11 << 20)


UPLOAD = "import sys; from pathlib import Path; from enrich.files import storage; storage.put(sys.argv[1], Path(sys.argv[2]))"


@pytest.mark.parametrize("instant", ["POST .*uploads", "PUT .*partNumber=2", "POST .*uploadId"])
def test_a_process_killed_while_it_uploads_leaves_nothing(s3: S3, tmp_path: Path, instant: str) -> None:
    """SIGKILL at the begin of an upload, in its middle or before its completion: there is no object."""
    (tmp_path / "x").write_bytes(bytes(25 << 20))
    s3.hang = instant
    url = s3.url("killed/x")
    process = subprocess.Popen([sys.executable, "-c", UPLOAD, url, str(tmp_path / "x")])
    assert s3.hung.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert s3.keys("killed/") == []


def test_a_probe_leaves_nothing(s3: S3) -> None:
    """Finding out whether an object can be written leaves none, and no upload."""
    before = s3.uploads()
    storage.probe(s3.url("probe/out.parquet"))
    assert s3.keys("probe/") == []
    assert s3.uploads() == before


# --- what can be wrong -----------------------------------------------------------------------------------


def test_problems_are_put_into_words(s3: S3) -> None:
    """A missing bucket, a refusal and a store that does not answer each say what they are, and what to do."""
    with pytest.raises(InputError, match="there is no bucket nowhere"):
        find_files(s3.url("x.csv", bucket="nowhere"))
    with pytest.raises(OSError, match="NO_SUCH_BUCKET") as caught:
        storage.write(s3.url("x.csv", bucket="nowhere"), b"x")
    assert storage.explain(caught.value, s3.url("x"))[0] == f"there is no bucket {BUCKET}"
    s3.refuse = lambda *_: (403, "AccessDenied")
    with pytest.raises(InputError, match="access denied") as refused:
        find_files(s3.url("x.csv"))
    assert "AWS_PROFILE" in refused.value.hint
    with pytest.raises(ConfigError, match="option `colour`"):
        find_files(f"s3://{BUCKET}/x.csv?colour=red")
    with pytest.raises(ConfigError, match="Unexpected query parameter"):
        find_files(f"gs://{BUCKET}/x.csv?colour=red")


@pytest.mark.slow
def test_a_store_that_does_not_answer(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there, or a server that takes requests and stays silent, is given up after a few attempts."""
    with pytest.raises(InputError, match="cannot be reached"):
        find_files(f"s3://{BUCKET}/x.csv?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")
    monkeypatch.setattr(storage, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(storage, "S3_ATTEMPTS", 2)
    s3.hang = "HEAD"
    with pytest.raises(InputError, match="cannot be reached"):
        find_files(s3.url("silent.csv") + "&allow_bucket_creation=false")


def test_an_object_that_is_gone(s3: S3) -> None:
    """An object that is removed between finding and reading it is an input error."""
    files = find_files(s3.put("gone/x.csv", b"a\n1\n"))
    storage.remove(s3.url("gone/x.csv"))
    with pytest.raises(FileNotFoundError):
        storage.open_file(files[0].path)
