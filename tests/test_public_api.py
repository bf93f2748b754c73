"""Names that others depend on: they may grow in number, but none goes away unnoticed."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import enrich
from enrich.answer.columns import step_fields
from enrich.cli.app import main
from enrich.config import Config, StepConfig
from enrich.errors import EnrichError
from enrich.records import STATUSES

PUBLIC = """
BalanceSpent BudgetSpent Config ConfigError DiskFull EndpointFailing EnrichError GuaranteeUnmet InputError KeyRefused LedgerError
LedgerFailing ModelChanged OutputError OutputLocked RowsFailed RowsUnasked RunInterrupted RunStopped Summary TemplateError UsageError __version__
aenrich_batches collect enrich_batches load_config output_schema run
""".split()  # noqa: SIM905  # reads better than forty quotes
EXIT_CODES = {
    1: "EnrichError",
    2: "UsageError ConfigError InputError TemplateError OutputError LedgerError",
    4: "RunStopped KeyRefused BalanceSpent BudgetSpent EndpointFailing GuaranteeUnmet ModelChanged RowsUnasked DiskFull LedgerFailing",
    5: "OutputLocked",
    130: "RunInterrupted",
}
COMMANDS = {
    *("run", "plan", "preview", "check", "init", "collect", "status", "retry", "report", "show"),
    *("models", "schema", "sandbox", "ledger"),
}


def test_the_public_names_are_these() -> None:
    """What `from enrich import …` gives, each once, in order."""
    assert enrich.__all__ == sorted(PUBLIC)
    assert dir(enrich) == enrich.__all__


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_each_public_name_is_there_and_explained(name: str) -> None:
    """Every name can be imported and says what it is."""
    assert inspect.getdoc(getattr(enrich, name))


def test_an_unknown_name_is_no_attribute() -> None:
    """A misspelt name fails as it does in any module."""
    with pytest.raises(AttributeError, match="module 'enrich' has no attribute 'rum'"):
        _ = enrich.rum


def test_errors_have_their_exit_codes() -> None:
    """Scripts and schedulers depend on them."""
    for code, names in EXIT_CODES.items():
        for name in names.split():
            error = getattr(enrich, name)
            assert issubclass(error, EnrichError)
            assert error.exit_code == code, name


def test_the_commands_are_these() -> None:
    """No command goes away."""
    assert set(main.commands) >= COMMANDS


def test_the_statuses_are_these() -> None:
    """What `s_status` and the summary may say."""
    assert (
        *(
            "ok",
            "error",
            "invalid_output",
            "unsupported",
            "truncated",
            "filtered",
            "in_doubt",
            "skipped",
            "pending",
        ),
    ) == STATUSES


def test_the_columns_of_a_step_are_these() -> None:
    """Names, order and types of what a step adds."""
    assert [(field.name, str(field.type).partition("<")[0]) for field in step_fields("s", None)] == [
        ("s", "string"),
        ("s_status", "dictionary"),
        ("s_error", "string"),
        ("s_model", "string"),
        ("s_request_id", "string"),
        ("s_finish_reason", "string"),
        ("s_prompt_tokens", "int64"),
        ("s_completion_tokens", "int64"),
        ("s_total_tokens", "int64"),
        ("s_credits", "double"),
        ("s_attempts", "int32"),
        ("s_latency_ms", "double"),
        ("s_source", "dictionary"),
        ("s_idempotency_key", "string"),
    ]


def test_the_documented_keys_are_there() -> None:
    """The keys of the configuration that the documentation names."""
    top = {
        "input",
        "output",
        "ledger",
        "endpoint",
        "steps",
        "limits",
        "retry",
        "budget",
        "dedupe",
        "tolerate",
    }
    assert top <= set(Config.model_fields)
    step = {
        *("name", "system", "prompt", "messages", "model", "fallback_models", "temperature", "max_tokens"),
        *("params", "stream", "when", "on_null", "answer_schema", "reask"),
    }
    assert step <= set(StepConfig.model_fields)


def test_import_alone_is_cheap() -> None:
    """`import enrich` brings in none of the heavy libraries."""
    heavy = ("pandas", "pyarrow", "aiohttp", "pydantic", "numpy", "jinja2")
    code = f"import sys, enrich; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
