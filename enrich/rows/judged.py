"""How a request ended becomes how the row stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.engine.retry import may_retry
from enrich.records import Completion, Outcome
from enrich.wire.meanings import meaning

if TYPE_CHECKING:
    from enrich.answer.reader import AnswerReader
    from enrich.records import RowStatus, Settled


def judge(reader: AnswerReader, settled: Settled) -> Outcome:
    """Turn how a request ended into how the row stands."""
    result = settled.result
    if isinstance(result, Completion):
        answer = reader.read(result)
        usage = result.usage
        outcome = Outcome(
            answer.status,
            answer.error,
            settled.key,
            answer.text,
            answer.values,
            result.model,
            settled.request_id,
            result.finish_reason,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
            usage.credits,
            settled.attempts,
            settled.latency_ms,
            "api" if settled.fresh else "ledger",
            settled.parent,
            usage.cached_tokens,
            usage.reasoning_tokens,
            usage.credits_usd,
        )
        if reader.pinned:
            outcome = outcome._replace(served=((settled.asked, result.model, result.system_fingerprint),))
        aside = reader.aside(result, answer)
        return outcome._replace(**aside) if aside else outcome
    status: RowStatus = "in_doubt" if settled.in_doubt else "error"
    error = str(result)
    if status == "error" and meaning(result) == "filtered":
        status = "filtered"
    if settled.skipped:
        status, error = "skipped", f"given_up: was in doubt ({result})"
    return Outcome(
        status,
        error,
        settled.key,
        request_id=result.request_id,
        attempts=settled.attempts,
        follows=settled.parent,
        lasting=status in ("error", "filtered") and not may_retry(result),
    )
