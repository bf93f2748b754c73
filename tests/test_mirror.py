"""Tests lie as the packages do: what a module does is tested in the file of its name, or in one that is named here."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "enrich"

# Modules, or whole packages, without a file of their name each: where they are tested, and why there.
ELSEWHERE = {
    # one promise of several modules, tested against real parts as a whole
    "sandbox.error_bodies": "sandbox/test_breakage.py",
    "ledger": "ledger/test_protocol.py",  # both ledgers by one contract
    "files": "files/test_source.py",  # what a reader of a file gets, whatever its format
    "wire.post": "wire/test_client.py",  # over real connections
    "schema": "schema/test_schema.py",  # what a schema takes and refuses
    "integrations": "integrations/test_airflow.py",  # in the real schedulers
    "cli": "cli/test_cli.py",  # as a process
    "prompt": "prompt/test_request.py",  # by the request that comes out
    "answer.edges": "answer/test_standing.py",  # what stands in a text, and what does not, as a whole
    "answer.near": "answer/test_standing.py",
    "answer.plain": "answer/test_standing.py",
    "answer.written": "answer/test_standing.py",
    "config.evidence": "answer/test_evidence.py",
    "config.escalate": "answer/test_escalation.py",
    "answer.doubt": "answer/test_escalation.py",
    "rows.judged": "rows/test_conversation.py",
    "config.pin": "rows/test_pins.py",
    "report.changes": "rows/test_pins.py",  # by what a run's answers come to
    "config.votes": "answer/test_ballot.py",
    "answer.repair": "answer/test_reader.py",
    "base.descriptors": "test_machine.py",
    "base.locks": "test_systems.py",  # with and without what POSIX has
    "base.system": "test_systems.py",
    "base.moments": "base/test_values.py",
    "base.texts": "base/test_values.py",
    "config.headers": "config/test_endpoint.py",
    "config.gold": "report/test_gold.py",  # by what a run scores
    "config.same": "runs/test_since.py",  # by what a run reads and writes
    "config.since": "runs/test_since.py",
    "config.table_names": "config/test_catalog.py",
    "config.overlap": "bad_input/test_overlaps.py",
    "base.concurrency": "pace/test_pace.py",
    "engine.claiming": "engine/test_engine.py",  # four parts of one machine, tested running
    "engine.desk": "engine/test_engine.py",
    "engine.dispatching": "engine/test_engine.py",
    "engine.gauging": "runs/test_bound_by.py",  # by what a run finds
    "engine.judging": "engine/test_engine.py",
    "engine.ticket": "engine/test_engine.py",
    "engine.working": "engine/test_engine.py",
    "engine.pictures": "runs/test_images.py",  # by what an endpoint receives
    "errors": "bad_input/test_messages.py",
    "frames.blocking": "frames/test_batches.py",
    "frames.door": "frames/test_batches.py",
    "frames.accessor": "frames/test_pandas.py",
    "frames.looking": "frames/test_pandas.py",
    "frames.reasked": "frames/test_pandas.py",
    "frames.arguments": "frames/test_pandas.py",
    "pace.bound": "pace/test_pace.py",  # parts of one pace, tested against servers in virtual time
    "pace.cap": "pace/test_gym.py",
    "pace.chance": "pace/test_pace.py",
    "pace.closed": "pace/test_pace.py",
    "pace.limit": "pace/test_pace.py",
    "pace.rate": "pace/test_pace.py",
    "pace.purse": "ledger/test_spending.py",  # by what the ledger keeps of it
    "pace.sent": "pace/test_pace.py",
    "pace.windows": "pace/test_pace.py",
    "pandas": "frames/test_pandas.py",
    "polars": "frames/test_polars.py",
    "records": "test_public_api.py",
    "report.html": "report/test_page.py",
    "report.facts": "report/test_page.py",  # records without behaviour
    "verbs.bill": "verbs/test_reconcile.py",  # by what is found on one
    "verbs.bill_matching": "verbs/test_reconcile.py",
    "report.waste": "rows/test_account.py",  # by what the uses of all runs add up to
    "report.rows": "report/test_page.py",  # read back from a run's output
    "rows.assemble": "rows/test_flow.py",  # by the columns of an output
    "rows.step": "rows/test_flow.py",
    "rows.story": "rows/test_chain.py",  # one step behind the other
    "runs.anew": "runs/test_chosen.py",
    "runs.options": "runs/test_run.py",  # records without behaviour
    "runs.published": "runs/test_databases.py",
    "runs.prepare": "runs/test_run.py",
    "runs.promise": "test_machine.py",
    "runs.session": "runs/test_stopping.py",
    "show.display": "show/test_progress.py",
    "live.sight": "live/test_server.py",  # by what a browser is told
    "show.pulse": "verbs/test_status.py",
    "runs.trust": "runs/test_guarantee.py",
    "runs.cohort": "verbs/test_trial.py",  # what is drawn, by what is asked
    "verbs.plan_estimate": "verbs/test_plan.py",
    "verbs.plan_result": "verbs/test_plan.py",
    "verbs.sheet_rows": "verbs/test_review.py",
    "verbs.review_examples": "verbs/test_review.py",  # of one sheet
    "verbs.review_result": "verbs/test_review.py",
}


def untested() -> dict[str, str | None]:
    """Give the modules without a test file of their name, each with its entry above."""
    found: dict[str, str | None] = {}
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).with_suffix("")
        own = TESTS / module.parent / f"test_{module.name}.py"
        if path.name in ("__init__.py", "__main__.py") or own.exists():
            continue
        name = ".".join(module.parts)
        found[name] = name if name in ELSEWHERE else module.parts[0] if module.parts[0] in ELSEWHERE else None
    return found


def test_every_module_has_a_test_file_of_its_name() -> None:
    """A new module comes with its tests, or with the place where they are: a fault has nowhere to hide."""
    assert sorted(name for name, entry in untested().items() if entry is None) == []


def test_no_entry_is_stale() -> None:
    """Each names tests that are there, for modules that have no file of their own."""
    assert [place for place in ELSEWHERE.values() if not (TESTS / place).is_file()] == []
    assert sorted(set(ELSEWHERE) - set(untested().values())) == []
