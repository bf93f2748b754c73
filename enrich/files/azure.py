"""Azure Blob Storage: which account a URL means, how it is opened, and an upload that is seen only when it is whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from pyarrow import fs

from enrich.base.location import CREDENTIALS, ObjectUrl
from enrich.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping

ACCOUNT_VARIABLES = (
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_ACCOUNT_NAME",
)  # environment variables of Azure's own tools
KEY_VARIABLES = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY")
TOKEN_VARIABLES = ("AZURE_STORAGE_SAS_TOKEN",)
STORE_OPTIONS = (
    "account_name",
    "blob_storage_authority",
    "blob_storage_scheme",
    "dfs_storage_authority",
    "dfs_storage_scheme",
)
PART_BYTES = 8 << 20  # bytes of one part of an upload
PARTS_AT_ONCE = 4  # parts under way


@dataclass(frozen=True, slots=True)
class StorageAccount:
    """An account and what opens it: its key, a SAS token, or neither for what `az login` or a managed identity gives."""

    name: str
    key: str | None
    token: str | None
    options: Mapping[str, str]


def open_store(url: ObjectUrl) -> fs.FileSystem:
    """Open the account of a URL for reading.

    Raises:
        ConfigError: no account is named, or an option is not known.
    """
    account = _account(url)
    options: dict[str, Any] = dict(account.options)
    return fs.AzureFileSystem(account.name, account_key=account.key, sas_token=account.token, **options)


def upload(url: ObjectUrl, data: bytes | mmap.mmap, kind: str) -> None:
    """Write an object: its parts are committed together when the last one has arrived.

    Args:
        url: of the object.
        data: its content.
        kind: its media type.

    Raises:
        OutputError: the library is not installed.
        OSError: the store refused.
    """
    try:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential
        from azure.storage.blob import BlobClient, ContentSettings
    except ImportError:
        raise OutputError(
            f"{url} cannot be written without Azure's library",
            hint="install it with: pip install 'beatra-enrich[azure]'",
        ) from None
    account = _account(url)
    container, _, key = url.path.partition("/")
    client = BlobClient(
        _endpoint(account),
        container,
        key,
        credential=account.key or account.token or DefaultAzureCredential(),
        max_block_size=PART_BYTES,
        max_single_put_size=PART_BYTES,
    )
    settings = ContentSettings(content_type=kind)
    try:
        with client:
            client.upload_blob(
                cast(bytes, data),  # what can be read will do
                length=len(data),
                overwrite=True,
                content_settings=settings,
                max_concurrency=PARTS_AT_ONCE,
            )
    except AzureError as error:
        raise OSError(str(error).partition("\nRequestId")[0]) from None


def _endpoint(account: StorageAccount) -> str:
    scheme = account.options.get("blob_storage_scheme", "https")
    authority = account.options.get("blob_storage_authority", ".blob.core.windows.net")
    if authority.startswith("."):
        return f"{scheme}://{account.name}{authority}"
    return f"{scheme}://{authority}/{account.name}"  # as the emulator has it


def _account(url: ObjectUrl) -> StorageAccount:
    given: dict[str, Any] = dict(parse_qsl(url.options))
    unknown = [name for name in given if name not in STORE_OPTIONS]
    if unknown:
        raise ConfigError(
            f"{url} has an option `{unknown[0]}` that is not known",
            hint=f"there is {', '.join(STORE_OPTIONS)}.",
        )
    host = url.bucket.partition("@")[2].partition(".")[0]
    name = host or given.pop("account_name", None) or _variable(ACCOUNT_VARIABLES)
    if not name:
        raise ConfigError(
            f"{url} names no storage account",
            hint=f"{CREDENTIALS[url.scheme]}; or write abfs://container@account.dfs.core.windows.net/key",
        )
    given.pop("account_name", None)
    key = _variable(KEY_VARIABLES)
    return StorageAccount(name, key, None if key else _variable(TOKEN_VARIABLES), given)


def _variable(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
