"""The job in words: all that bounds it is told, and nothing secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import enrich
from enrich.report.job_words import job_words

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["pos", "neg"]}, "score": {"type": "number"}},
}


def config_of(step: dict[str, Any], **more: Any) -> enrich.Config:
    """Make a job of one step."""
    steps = [{"name": "s", "prompt": "Say {{ t }}", **step}]
    return enrich.Config.model_validate({"input": "in.csv", "output": "out.csv", "steps": steps, **more})


def test_models_limits_budget_and_prompts_are_told() -> None:
    """A reader sees what bounds the run, and what was asked."""
    words = job_words(
        config_of(
            {
                "system": "Be brief.",
                "model": "fast-1",
                "fallback_models": ["auto"],
                "temperature": 0,
                "max_tokens": 64,
                "when": "{{ stars < 3 }}",
                "schema": SCHEMA,
                "limits": {"requests_per_minute": 30},
                "params": {"seed": 7},
            },
            limits={
                "requests_per_minute": 600,
                "concurrency": 8,
                "windows": [{"tokens": 5000, "seconds": 10}],
            },
            budget={"credits": 50},
            tolerate="1%",
        ),
        content=True,
    )
    assert dict(words.facts) == {
        "in flight": "as many as bring more answers, 8 at most",
        "limits told": "600 requests a minute; 5,000 tokens in 10 s",
        "budget of a run": "50 credits",
        "retries": "up to 6 attempts of a request",
        "identical requests": "asked once",
        "failed rows tolerated": "1%",
    }
    (step,) = words.steps
    facts = dict(step.facts)
    assert facts["model"] == "fast-1, then auto"
    assert facts["limits of the step"] == "30 requests a minute"
    assert (facts["temperature"], facts["max_tokens"], facts["asked when"]) == (
        "0.0",
        "64",
        "{{ stars < 3 }}",
    )
    assert facts["answer"] == 'label: "pos" | "neg"; score: double'
    assert facts["further parameters"] == '{"seed":7}'
    assert step.messages == (("system", "Be brief."), ("user", "Say {{ t }}"))


def test_without_content_no_template_and_no_answer_is_told() -> None:
    """`--no-content` holds here too."""
    words = job_words(
        config_of({"when": "{{ hush }}", "params": {"a": "hush"}, "schema": SCHEMA, "examples": []}),
        content=False,
    )
    assert "hush" not in str(words)
    assert "pos" not in str(words)
    assert words.steps[0].messages == ()


def test_examples_are_shown_in_part_and_a_lost_file_is_said(tmp_path: Path) -> None:
    """Long lists are cut; a prompt's file that is gone does not stop the page."""
    examples = [{"user": f"u{number}", "assistant": {"label": "pos"}} for number in range(5)]
    (step,) = job_words(config_of({"examples": examples}), content=True).steps
    roles = [role for role, _ in step.messages]
    assert roles == ["example", "its answer"] * 3 + ["and 2 more examples", "user"]
    gone = config_of({"prompt": None, "prompt_file": str(tmp_path / "gone.txt")})
    (step,) = job_words(gone, content=True).steps
    assert "gone.txt" in step.messages[0][0]


def test_headers_are_told_nowhere() -> None:
    """Gateways keep secrets in them."""
    config = config_of({}, endpoint={"base_url": "https://x.test/v1", "headers": {"api-key": "hush"}})
    assert "hush" not in str(job_words(config, content=True))
