"""An Airflow connection of type `beatra`: where requests go, and with which key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from enrich.errors import ConfigError, EnrichError

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from enrich.config import EndpointConfig
    from enrich.config.endpoint import Endpoint

EXTRA = (
    "timeout",
    "headers",
    "ca_file",
    "proxy",
    "stream_end",
    "finish_reason",
)  # keys of `endpoint` that the extra may hold


class BeatraHook(BaseHook):
    """What a connection says.

    Its password is the API key, its host the base URL (default: Beatra's own), its extra may hold `timeout`,
    `headers`, `ca_file`, `proxy`, `stream_end` and `finish_reason` as in a configuration's `endpoint`.

    Args:
        beatra_conn_id: the connection's id.
        kwargs: of Airflow's `BaseHook`.
    """

    conn_name_attr = "beatra_conn_id"
    default_conn_name = "beatra_default"
    conn_type = "beatra"
    hook_name = "Beatra"

    def __init__(self, beatra_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.beatra_conn_id = beatra_conn_id

    def get_conn(self) -> Endpoint:
        """Give the endpoint, ready to be connected to; the key in it is not shown.

        Raises:
            ConfigError: there is no key, or a value cannot be used.
        """
        from enrich.config import KEY_VARIABLE, EndpointConfig
        from enrich.config.endpoint import resolve_endpoint

        config = self.endpoint_config(EndpointConfig())
        return resolve_endpoint(config, {KEY_VARIABLE: self.api_key()})

    def endpoint_config(self, given: EndpointConfig) -> EndpointConfig:
        """Complete a job's `endpoint`: what it leaves open is as the connection says.

        Raises:
            ConfigError: the extra holds what it may not.
        """
        from pydantic import ValidationError

        from enrich.config import EndpointConfig, problems

        connection = self._connection()
        extra = {key: value for key, value in connection.extra_dejson.items() if value not in (None, "")}
        unknown = sorted(set(extra) - set(EXTRA))
        if unknown:
            raise ConfigError(
                f"the extra of the connection `{self.beatra_conn_id}` holds `{unknown[0]}`",
                hint=f"it may hold {', '.join(EXTRA)}; the key is the password, the base URL the host.",
            )
        document = {"base_url": _base_url(connection), **extra, **given.model_dump(exclude_unset=True)}
        try:
            return EndpointConfig.model_validate(document)
        except ValidationError as error:
            raise ConfigError(
                f"the connection `{self.beatra_conn_id}` is not valid:\n{problems(error, document, EndpointConfig)}"
            ) from None

    def api_key(self) -> str:
        """Give the key.

        Raises:
            ConfigError: the connection has none.
        """
        key = (self._connection().password or "").strip()
        if not key:
            raise ConfigError(
                f"the connection `{self.beatra_conn_id}` has no password, which is the API key",
                hint="edit it, or set beatra_conn_id=None to take the key from the worker's environment.",
            )
        return key

    def test_connection(self) -> tuple[bool, str]:
        """Ask the endpoint for its health and the account's models; sends no completion."""
        from enrich.base.loops import run_sync
        from enrich.verbs.check import check_endpoint

        try:
            endpoint = self.get_conn()
        except EnrichError as error:
            return False, str(error)
        findings = run_sync(lambda: check_endpoint(endpoint))
        failed = [finding for finding in findings if not finding.ok]
        return not failed, "; ".join(f"{finding.name}: {finding.text}" for finding in failed or findings)

    def _connection(self) -> Connection:
        """Look the connection up; one that is nowhere is a mistake in the set-up, which no retry mends."""
        try:
            return self.get_connection(self.beatra_conn_id)
        except AirflowNotFoundException:
            raise ConfigError(
                f"there is no connection `{self.beatra_conn_id}`",
                hint=f"add one of type `{self.conn_type}` whose password is the API key: in the web interface, or as"
                f" {_variable(self.beatra_conn_id)} in the worker's environment. beatra_conn_id=None takes the key from"
                " that environment.",
            ) from None


def _variable(conn_id: str) -> str:
    """Name the variable in which Airflow looks for a connection."""
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def _base_url(connection: Connection) -> str | None:
    """Put a base URL together, however it was entered: whole as the host, or in the parts of a connection's URI."""
    if not connection.host:
        return None
    url = connection.host if "://" in connection.host else f"https://{connection.host}"
    if connection.port:
        url += f":{connection.port}"
    return f"{url}/{connection.schema}" if connection.schema else url
