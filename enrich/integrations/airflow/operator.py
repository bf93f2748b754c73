"""The Airflow operator that runs a job in the task's own process."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from enrich.base.location import is_url
from enrich.errors import ConfigError, EnrichError, RunInterrupted
from enrich.integrations.airflow.hook import BeatraHook

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from enrich.config import Config
    from enrich.files.source import Source
    from enrich.integrations.airflow.lineage import Traced
    from enrich.records import Summary
    from enrich.runs.job import Job

DRAIN_WHEN_KILLED = 3.0  # seconds for what is in flight when the task is killed: Airflow's SIGKILL comes 5 s after its SIGTERM
PROGRESS_EVERY = 30.0  # seconds between lines of progress in the task's log


class BeatraEnrichOperator(BaseOperator):
    """Ask a language model about every row of a table, and pay for every answer once.

    A try that follows another one goes on where that one stood: what was answered is in the ledger.

    Args:
        config: the path of a configuration file, absolute or as it is found from the DAG's folder and its
            `template_searchpath`; or its content as a mapping. All of it but `steps` is rendered by Airflow.
        input: read these rows instead.
        output: write here instead; give `outlets` an asset for it, and its events tell the counts of rows.
        overrides: ``key.path=value`` assignments, applied in order.
        beatra_conn_id: the connection with the key; None takes it from the worker's environment.
        limit: only the first so many rows.
        progress_every: seconds between lines of progress in the task's log.
        kwargs: of Airflow's `BaseOperator`.

    Raises:
        AirflowFailException: in `execute`, where no retry helps.
        AirflowException: in `execute`, where one may.
    """

    template_fields: Sequence[str] = ("config", "input_path", "output_path", "overrides")
    template_ext: Sequence[str] = (".yaml", ".yml")
    template_fields_renderers = {"config": "yaml", "overrides": "json"}  # noqa: RUF012  # as Airflow declares it
    ui_color = "#dce6ff"

    _folder: Path | None = None  # of the configuration file that was read
    _under_way = False
    _traced: Traced | None = None
    _ended: Summary | None = None

    def __init__(
        self,
        *,
        config: str | Mapping[str, Any],
        input: str | None = None,  # noqa: A002  # named as the key
        output: str | None = None,
        overrides: Sequence[str] = (),
        beatra_conn_id: str | None = BeatraHook.default_conn_name,
        limit: int | None = None,
        progress_every: float = PROGRESS_EVERY,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.input_path = input
        self.output_path = output  # `output` is the task's XCom
        self.overrides = overrides
        self.beatra_conn_id = beatra_conn_id
        self.limit = limit
        self.progress_every = progress_every

    # --- templates --------------------------------------------------------------------------------------

    def resolve_template_files(self) -> None:
        """Leave the file alone while the DAG is parsed: it is read, and rendered, where the task runs."""

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: Any = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a field; of a configuration all but `steps`, whose templates are rendered for every row.

        A text that ends as a file's name does names a file only where it is the whole `config`.
        """
        if seen_oids and id(content) in seen_oids:
            return content  # from an upstream task: data, not a template
        jinja_env = jinja_env or self.get_template_env()
        whole = content is self.config
        if isinstance(content, str):
            content = self._render(jinja_env.from_string(content), context)
            if not whole:
                return content
            content = self._read(content)
        if whole and isinstance(content, dict):
            return {
                key: value if key == "steps" else self.render_template(value, context, jinja_env, seen_oids)
                for key, value in content.items()
            }
        return super().render_template(content, context, jinja_env, seen_oids)

    def _read(self, name: str) -> dict[str, Any]:
        """Read the configuration file; relative paths in it are relative to its folder."""
        from enrich.config import read_mapping

        try:
            path = self._find(Path(name).expanduser())
            self._folder = path.parent
            return read_mapping(path)
        except EnrichError as error:
            raise AirflowFailException(str(error)) from None

    def _find(self, name: Path) -> Path:
        folders = (self._dag_folder, *map(Path, self.dag.template_searchpath or ()))
        for folder in folders:
            path = (folder / name).resolve()  # an absolute name stays what it is
            if path.is_file():
                return path
        searched = "\n".join(f"  {number}. {folder}" for number, folder in enumerate(folders, 1))
        raise ConfigError(
            f"no configuration file {name}; searched in this order:\n{searched}",
            hint="name it from the DAG's folder, add its own to `template_searchpath`, or give an absolute path.",
        )

    def _from_dag(self, location: str | None) -> str | None:
        """Make a relative path relative to the DAG's folder."""
        return location if location is None or is_url(location) else str(self._dag_folder / location)

    @property
    def _dag_folder(self) -> Path:
        return Path(self.dag.folder).resolve()

    # --- the run ----------------------------------------------------------------------------------------

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the job; gives the summary, which is pushed as XCom also where the task fails over it."""
        self._under_way = True
        try:
            config, api_key = self._job()
            summary = self._run(config, api_key)
        except EnrichError as error:
            raise _failure(str(error), passes=error.passes) from None
        finally:
            self._under_way = False
        self._ended = summary
        result = summary.to_dict()
        if summary.exit_code:
            if self.do_xcom_push:
                context["ti"].xcom_push("return_value", result)
            raise _failure(_said(summary), passes=summary.resumable)
        self.log.info(_said(summary))
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = _counts(summary)
        return result

    def on_kill(self) -> None:
        """Stop the run: nothing more is sent, what is in flight is awaited for a moment, the ledger is closed.

        Airflow calls this from its handler of SIGTERM, in the main thread, which waits for the run: what is raised
        here ends the waiting.
        """
        if self._under_way:
            self._under_way = False
            raise RunInterrupted

    def _job(self) -> tuple[Config, str | None]:
        """Put the job together, and find the key for it."""
        from enrich.config import complete_config
        from enrich.runs.job import SANDBOX

        document = self._read(self.config) if isinstance(self.config, str) else self.config
        config = complete_config(
            document,
            folder=self._folder or self._dag_folder,
            overrides=self.overrides,
            input=self._from_dag(self.input_path),
            output=self._from_dag(self.output_path),
        )
        if self.beatra_conn_id is None or config.endpoint.base_url == SANDBOX:
            return config, None
        hook = BeatraHook(self.beatra_conn_id)
        endpoint = hook.endpoint_config(config.endpoint)
        return config.model_copy(update={"endpoint": endpoint}), hook.api_key()

    def _run(self, config: Config, api_key: str | None) -> Summary:
        """Run the job in a thread of its own: this one stays free for Airflow's signals and time-outs."""
        from enrich.base.interrupt import Interrupt
        from enrich.base.loops import run_stoppable
        from enrich.integrations.airflow.lineage import trace
        from enrich.runs.options import RunOptions
        from enrich.runs.run import run_job
        from enrich.show.logs import PROGRESS
        from enrich.show.progress import shown
        from enrich.show.watch import Watch

        interrupt, watch = Interrupt(), Watch(config.limits)
        summaries: list[Summary] = []

        def prepared(source: Source, job: Job) -> None:
            self._traced = trace(config.input.path, source, job)

        options = RunOptions(
            limit=self.limit,
            progress=watch,
            interrupt=interrupt,
            command=None,
            drain=DRAIN_WHEN_KILLED,
            api_key=api_key,
            prepared=prepared,
        )

        async def main() -> None:
            async with shown(watch, sys.stderr, live=False, log=PROGRESS, every=self.progress_every):
                summaries.append(await run_job(config, options))

        _hear_progress()
        try:
            run_stoppable(main, interrupt.fire)
        except RunInterrupted:
            if not summaries:
                raise
        return summaries[0]

    # --- lineage ----------------------------------------------------------------------------------------

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage:  # noqa: ARG002  # Airflow's signature
        """Tell OpenLineage, where its provider is installed, of the files and of the columns behind each column."""
        from enrich.integrations.airflow.lineage import facets

        return facets(self._traced, self._ended)


def _hear_progress() -> None:
    """Let progress into the task's log, and warnings; single retries only where somebody asked for them."""
    from enrich.show.logs import PROGRESS

    logger = logging.getLogger("enrich")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
    if PROGRESS.level == logging.NOTSET:
        PROGRESS.setLevel(logging.INFO)


def _failure(message: str, *, passes: bool) -> AirflowException:
    """Give an error that ends the task for good, or one after which Airflow may try again."""
    return AirflowException(message) if passes else AirflowFailException(message)


def _said(summary: Summary) -> str:
    """Say in one sentence how a run ended."""
    text = f"{summary.reason} ({summary.requests:,} requests sent, {summary.credits:,.6g} credits)"
    if summary.exit_code == 3:
        text += "\nHint: the columns ending in _error say why; `tolerate` says how many rows may fail."
    return f"{text} → {summary.output}" if summary.exit_code == 0 else text


def _counts(summary: Summary) -> dict[str, Any]:
    """Give what an asset's event tells of its rows."""
    statuses: dict[str, int] = {status: count for status, count in summary.statuses.items() if count}
    return {"rows": summary.rows, **statuses, "requests": summary.requests, **summary.amounts()}
