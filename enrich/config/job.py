"""The whole configuration: all its sections, as one `Config`."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from platformdirs import user_cache_path
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from enrich.base.location import is_url, without_slash
from enrich.config.budget import BudgetConfig, ModelPrices
from enrich.config.endpoint import EndpointConfig
from enrich.config.gold import GoldConfig, as_gold_mapping
from enrich.config.ledger_url import without_password
from enrich.config.limits import RATES, LimitsConfig, RetryConfig
from enrich.config.overrides import as_path_mapping, ledger_beside
from enrich.config.section import FilePath, Section, Target, named, sound_path
from enrich.config.steps import StepConfig, StepLimits
from enrich.config.tables import BY_KEY, InputConfig, OutputConfig

if TYPE_CHECKING:
    from collections.abc import Iterator


def _on_this_machine(path: Path) -> Path:
    if is_url(str(path)) or re.match(r"[a-z0-9+]+:/", str(path)):
        raise ValueError("is a URL; node exporter reads a file of this machine")
    return Path(named(str(path)))


class JobConfig(Section):
    """What is asked and how, wherever the rows come from and go to.

    Attributes:
        input: the rows; a path, or a mapping.
        output: the enriched rows; a path, or a mapping.
        ledger: a file, or a database's URL that machines share; default `.beatra/ledger.db` beside the output, or
            beside this file when the output is a URL.
        endpoint: where requests go, and how.
        steps: the questions, in order; a later one sees the answers of earlier ones.
        limits: how fast requests may go.
        retry: how hard a row is tried.
        budget: what one run may spend, and all runs together.
        prices: what models cost, by name, where money is to be counted in more than the endpoint tells.
        dedupe: ask identical requests once; `false` asks each row on its own.
        tolerate: failed rows (a count, or a share such as `1%`) that still count as success.
        max_reasked: rows that were answered before and may be asked again, as after a changed prompt (a count, or a share
            such as `10%` of those): above it a run stops before it sends anything. 10 % by default, where more than
            1,000 rows were answered; `100%` confirms. Of rows that come in batches (`enrich_batches`) the first batch is
            looked through; on Spark and Ray, where none can be, a change is warned of, and refused where this is set.
        gold: values given by hand, which answers of a job over files are scored against.
        report: write a page on each run to this file or URL.
        metrics_file: keep the figures of a run in this file, for Prometheus' node exporter (its textfile collector): every minute,
            and when the run has ended.
    """

    input: Annotated[InputConfig | None, BeforeValidator(as_path_mapping)] = None
    output: Annotated[OutputConfig | None, BeforeValidator(as_path_mapping)] = None
    ledger: Annotated[str, AfterValidator(sound_path), AfterValidator(named)] | None = None
    endpoint: EndpointConfig = EndpointConfig()
    steps: Annotated[list[StepConfig], Field(min_length=1)]
    limits: LimitsConfig = LimitsConfig()
    retry: RetryConfig = RetryConfig()
    budget: BudgetConfig = BudgetConfig()
    prices: dict[str, ModelPrices] = {}
    dedupe: bool = True
    tolerate: int | str = 0
    max_reasked: int | str | None = None
    gold: Annotated[GoldConfig | None, BeforeValidator(as_gold_mapping)] = None
    report: Target | None = None
    metrics_file: Annotated[FilePath, AfterValidator(_on_this_machine)] | None = None
    _file: Path | None = PrivateAttr(default=None)

    @field_validator("tolerate", "max_reasked", mode="before")
    @classmethod
    def _count_or_share(cls, value: Any) -> Any:
        if value is None:
            return None
        match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%|\d+", str(value), re.ASCII)
        if not match or float(match[1] or 0) > 100:
            raise ValueError(f"give a count of rows, or a share such as 1% (it is {value!r})")
        return value if match[1] else int(value)

    @field_validator("steps")
    @classmethod
    def _names_differ(cls, steps: list[StepConfig]) -> list[StepConfig]:
        names = [step.name for step in steps]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"two steps are named `{name}`; names prefix the output columns and must differ"
                )
        return steps

    @field_validator("steps")
    @classmethod
    def _last_explodes(cls, steps: list[StepConfig]) -> list[StepConfig]:
        for step in steps[:-1]:
            if step.explode is not None:
                raise ValueError(
                    f"`{step.name}.explode` makes many rows of one, and step `{steps[-1].name}` behind it asks once for each "
                    "row of the input; only the last step may explode"
                )
        return steps

    @property
    def writes_back(self) -> bool:
        """Whether the output is the table that is read."""
        rows, output = self.input, self.output
        if rows is None or output is None or output.table is None or output.mode not in BY_KEY:
            return False
        if rows.table is not None:
            return (rows.table, rows.url) == (output.table, output.url)
        return isinstance(rows.path, str) and output.url == f"delta:{without_slash(rows.path)}"

    @property
    def file(self) -> Path | None:
        """The file that it was read from, if any."""
        return self._file

    def tolerated(self, rows: int) -> int:
        """Say how many failed rows of so many still count as success."""
        if isinstance(self.tolerate, int):
            return self.tolerate
        return int(rows * Fraction(self.tolerate.rstrip("% ")) / 100)  # 0.57 % of 10,000 are 57, not 56

    def rates(self) -> Iterator[str]:
        """Name the limits over a span of time that are set, of the run and of its steps."""
        places: list[tuple[str, LimitsConfig | StepLimits | None]] = [("limits", self.limits)]
        places += [(f"steps.{step.name}.limits", step.limits) for step in self.steps]
        for place, limits in places:
            for name in (*RATES, "windows"):
                if getattr(limits, name, None):
                    yield f"`{place}.{name}`"

    def ledger_location(self) -> str:
        """Give the ledger's path or URL: as configured, else beside an output file, else in the user's cache."""
        if self.ledger is not None:
            return self.ledger
        if self.output is not None and not is_url(self.output.path):
            return ledger_beside(self.output.path)
        return str(user_cache_path("beatra-enrich") / "ledger.db")

    def ledger_shown(self) -> str:
        """Give `ledger_location` as it may be printed and kept: a URL without its password."""
        return without_password(self.ledger_location())


class Config(JobConfig):
    """One job over files, as `beatra-enrich run` takes it.

    Attributes:
        order: in which rows are asked: as they stand in the `input`, or by the `prefix` of their first step's prompts, so that an endpoint
            reads more of them from its cache. The output has the order of the input either way.
    """

    input: Annotated[InputConfig, BeforeValidator(as_path_mapping)]
    output: Annotated[OutputConfig, BeforeValidator(as_path_mapping)]
    order: Literal["input", "prefix"] = "input"

    @model_validator(mode="after")
    def _keeps_what_is_there(self) -> Self:
        if self.input.since is not None and self.output.key is None:
            raise ValueError(
                "`input.since` reads only what is new: the output must be a table whose other rows stay; give it "
                "`mode: merge`, `update` or `append` and a `key` (--set input.since=null reads everything)"
            )
        return self

    @model_validator(mode="after")
    def _one_budget_over_both_phases(self) -> Self:
        """A guarantee asks a sample and then the rows: a budget that the ledger keeps holds both, that of one run each of them."""
        guaranteed = any(
            step.escalation is not None and step.escalation.guarantee is not None for step in self.steps
        )
        for unit in ("credits", "tokens", "requests") if guaranteed else ():
            if (most := getattr(self.budget, unit)) is not None:
                raise ValueError(
                    f"`budget.{unit}` and `escalate.guarantee` exclude each other: sample and rows would each have it whole; "
                    f"write `budget: {{windows: [{{{unit}: {most:g}, per: total, tag: NAME}}]}}`, which both share"
                )
        return self

    @model_validator(mode="after")
    def _order_tells_no_rows_apart(self) -> Self:
        if self.order == "prefix" and not self.dedupe:
            raise ValueError(
                "`order: prefix` and `dedupe: false` exclude each other: that tells equal rows apart by their order"
            )
        return self
