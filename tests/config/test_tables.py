from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from enrich.config.tables import CsvOptions, InputConfig, OutputConfig


@pytest.mark.parametrize(
    ("given", "path", "partitioned"),
    [
        ({"path": "out.csv"}, "out.csv", False),
        ({"path": "out/"}, "out", True),
        ({"path": "out//"}, "out", True),
        ({"path": "out", "partitioned": True}, "out", True),
        ({"path": "out/", "partitioned": False}, "out", True),
        ({"path": "file:///a%20b/"}, "/a b", True),
        ({"path": "file:///a.csv"}, "/a.csv", False),
        ({"path": "s3://b/k/"}, "s3://b/k", True),
        ({"path": "s3://b/k/?region=x"}, "s3://b/k?region=x", True),
        ({"path": "s3://b/k.csv"}, "s3://b/k.csv", False),
    ],
)
def test_a_path_that_ends_with_a_slash_is_a_folder(
    given: dict[str, Any], path: str, partitioned: bool
) -> None:
    """Of a path as of a URL, whatever else is said; the folder's name has no slash."""
    before = dict(given)
    found = OutputConfig.model_validate(given)
    assert (found.path, found.partitioned) == (path, partitioned)
    assert given == before


@pytest.mark.parametrize("path", [5, None, ["a"], "ftp://h/x", "file://host/x/", "s3://AKIA:hush@b/x/"])
def test_no_output(path: Any) -> None:
    """What names no place to write to is refused, and no credential is repeated."""
    with pytest.raises(ValidationError) as caught:
        OutputConfig.model_validate({"path": path})
    assert "hush" not in "".join(problem["msg"] for problem in caught.value.errors())


@pytest.mark.parametrize("text", ["day=2026-11-22", "day=", "a=b=c", "a b=c"])
def test_a_partition_has_a_key_and_a_value(text: str) -> None:
    """The first `=` parts them; the value may be empty, or hold another one."""
    assert InputConfig(path="x", partitions=[text]).partitions == [text]


@pytest.mark.parametrize("text", ["day", "=x", "a/b=c", ""])
def test_no_partition(text: str) -> None:
    """What cannot name a Hive folder is refused with the form that does."""
    with pytest.raises(ValidationError, match="is not of the form key=value, such as day=2026-11-22"):
        InputConfig(path="x", partitions=[text])


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"delimiter": ";"}, True),
        ({"delimiter": ""}, False),
        ({"delimiter": "||"}, False),
        ({"quote": ""}, True),
        ({"quote": "''"}, False),
        ({"bad_rows": "skip"}, False),
        ({"types": {"zip": "string"}}, True),
    ],
)
def test_csv_options(options: dict[str, Any], taken: bool) -> None:
    """A delimiter is one character; a quote may be none."""
    if taken:
        assert CsvOptions.model_validate(options).model_dump(include=set(options)) == options
    else:
        with pytest.raises(ValidationError):
            CsvOptions.model_validate(options)
