from __future__ import annotations

import pytest

from enrich.wire.finish import ending


@pytest.mark.parametrize(
    ("reason", "meant"),
    [
        (None, "whole"), ("stop", "whole"), ("STOP", "whole"), ("end_turn", "whole"), ("eos_token", "whole"),
        ("COMPLETE", "whole"), ("FINISH_REASON_STOP", "whole"), ("tool_calls", "whole"), ("stopSequence", "whole"),
        ("length", "truncated"), ("MAX_TOKENS", "truncated"), ("max_output_tokens", "truncated"),
        ("model_length", "truncated"), ("output_limit", "truncated"), ("model_context_window_exceeded", "truncated"), ("incomplete", "truncated"),
        ("content_filter", "filtered"), ("SAFETY", "filtered"), ("RECITATION", "filtered"), ("refusal", "filtered"),
        ("guardrail_intervened", "filtered"), ("sensitive", "filtered"), ("content-filter", "filtered"),
        ("error", "broken"), ("abort", "broken"), ("insufficient_system_resource", "broken"),
        ("network_error", "broken"), ("FinishReason.ERROR", "broken"), ("because", "unknown"), ("", "unknown"),
    ],
)  # fmt: skip
def test_spellings(reason: str | None, meant: str) -> None:
    """The spellings of many servers mean one of a few things; a new one is not guessed at."""
    assert ending(reason) == meant
