"""Where data lies, as text: a path of this machine, or the URL of an object in a store such as S3."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

STORES = ("s3", "gs", "az", "abfs")  # schemes of object stores
ANONYMOUS = "anonymous"  # `gs://anonymous@bucket`: without credentials, for public data
AZURE = ("az", "abfs")  # two names of one store
OPTIONS = re.compile(
    r"\?(\w+=[^&?]*(?:&\w+=[^&?]*)*&?)$"
)  # at the end of a URL; any other `?` belongs to a glob
SECRET = re.compile(
    r"key|secret|token|password|sig", re.IGNORECASE
)  # what an option with a credential is called
CREDENTIALS = {
    "s3": "export AWS_PROFILE=…, or AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…",
    "gs": "export GOOGLE_APPLICATION_CREDENTIALS=/path/of/the/key.json, or type gcloud auth application-default login",
    "az": "export AZURE_STORAGE_ACCOUNT=… and AZURE_STORAGE_KEY=…, or type az login",
}
CREDENTIALS["abfs"] = CREDENTIALS["az"]


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """The URL of an object, or of what stands for a folder, in an object store.

    Attributes:
        scheme: one of `STORES`.
        bucket: of Azure the container, as ``container@account.host`` or alone; of GCS maybe ``anonymous@bucket``.
        key: as the store has it, nothing in it is percent-decoded; without a leading slash.
        options: what stands behind the ``?``, such as ``endpoint_override=localhost:9000&scheme=http``.
    """

    scheme: str
    bucket: str
    key: str
    options: str = ""

    @classmethod
    def parse(cls, url: str) -> ObjectUrl:
        """Take a URL apart.

        Raises:
            ValueError: it is none of an object store, names no bucket, or carries a credential.
        """
        scheme, _, rest = url.partition("://")
        if scheme not in STORES:
            known = ", ".join(f"{one}://" for one in STORES)
            raise ValueError(
                f"{scheme}:// is no place that can be read or written; use a path, file://, {known}"
            )
        match = OPTIONS.search(rest)
        rest, options = (rest[: match.start()], match[1]) if match else (rest, "")
        bucket, _, key = rest.partition("/")
        user, at, host = bucket.rpartition("@")
        is_key = at and (scheme == "s3" or (scheme == "gs" and user != ANONYMOUS))
        if ":" in user or is_key or _names_secret(options):
            raise ValueError(
                f"{scheme}://{host}/{key} carries a credential, which would come into logs and reports; "
                f"take it out and {CREDENTIALS[scheme]}"
            )
        if not bucket:
            raise ValueError(f"{url} names no bucket; write {scheme}://bucket/key")
        return cls(scheme, bucket, key.lstrip("/"), options)

    def __str__(self) -> str:
        text = f"{self.scheme}://{self.bucket}/{self.key}"
        return f"{text}?{self.options}" if self.options else text

    @property
    def path(self) -> str:
        """Give bucket and key as Arrow's file systems take them."""
        first, _, last = self.bucket.partition("@")
        return f"{first if self.is_azure else last or first}/{self.key}".rstrip("/")

    @property
    def is_azure(self) -> bool:
        """Tell whether the store is Azure's."""
        return self.scheme in AZURE

    @property
    def name(self) -> str:
        """Give what stands behind the last slash."""
        return self.key.rpartition("/")[2]

    def at(self, key: str) -> ObjectUrl:
        """Give another key of the same bucket."""
        return replace(self, key=key)

    def beside(self, name: str) -> ObjectUrl:
        """Give a name in the same folder."""
        return self.at(self.key[: len(self.key) - len(self.name)] + name)


def _names_secret(options: str) -> bool:
    return any(SECRET.search(option.partition("=")[0]) for option in options.split("&"))


def is_url(location: str) -> bool:
    """Tell a URL from a path."""
    return "://" in location


def plain(location: str) -> str:
    """Hold a location to what can be used; ``file://`` becomes the path it stands for.

    Raises:
        ValueError: a URL that cannot; its text is one line that a user can act on and holds no credential.
    """
    if not is_url(location):
        return location
    if location.startswith("file://"):
        host, slash, path = location.removeprefix("file://").partition("/")
        if host not in ("", "localhost") or not slash:
            raise ValueError(f"{location} names no file of this machine; write file:///folder/name")
        return f"/{unquote(path)}"  # `?` and `#` belong to the path: the one to a glob, the other to a name
    return str(ObjectUrl.parse(location))


def without_slash(location: str) -> str:
    """Give a path or URL without the slashes at its end, which mark a folder; the root stays.

    Raises:
        ValueError: a URL that cannot be used.
    """
    if not is_url(location) or location.startswith("file://"):
        scheme = "file://" if is_url(location) else ""
        path = location.removeprefix(scheme)
        return scheme + (path.rstrip("/") or path[:1])
    url = ObjectUrl.parse(location)
    return str(url.at(url.key.rstrip("/"))) if url.key.endswith("/") else location


def child(location: str, name: str) -> str:
    """Give what has this name, or relative path with ``/``, in a folder."""
    if not is_url(location):
        return str(Path(location, name))
    url = ObjectUrl.parse(location)
    return str(url.at(f"{url.key.rstrip('/')}/{name}".lstrip("/")))


def native(path: str) -> Any:
    """Give a path of this machine as Arrow takes every one: its bytes, which need be no UTF-8."""
    return os.fsencode(path)


def suffixes(location: str) -> list[str]:
    """Give the suffixes of a path's or URL's last part in lower case: ``['.csv', '.gz']``."""
    name = ObjectUrl.parse(location).name if is_url(location) else Path(location).name
    return [suffix.lower() for suffix in PurePosixPath(name).suffixes]
