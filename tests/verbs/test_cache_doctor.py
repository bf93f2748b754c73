"""What a prompt cache can do is told before a run, and what it did after; held to the books of an endpoint that bills prefixes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from enrich.prompt.prefix import Prefix, constant_first
from enrich.prompt.request import RequestBuilder
from enrich.records import Ask
from enrich.sandbox import SandboxOptions, ThreadedSandbox
from tests.helpers.wire import config_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.helpers.warm import Ended

RULES = "\n".join(f"Rule {n}: weigh what the customer says of part {n} of the thing." for n in range(120))
GOOD = f"{RULES}\n\nThe review: {{{{ t }}}}"
BAD = f"The review: {{{{ t }}}}\n\n{RULES}"
ROWS = [{"t": f"{n} is what I say of it, more or less"} for n in range(30)]


@pytest.fixture
def sandbox() -> Any:
    """An emulator with a cache."""
    with ThreadedSandbox(SandboxOptions(cache=1_024)) as opened:
        yield opened


def asked(cli: Callable[..., Ended], sandbox: ThreadedSandbox, *args: str | Path) -> Ended:
    """Run a command line against it."""
    return cli(*args, BEATRA_BASE_URL=sandbox.base_url, BEATRA_API_KEY="sk-any")


def test_data_before_the_rules(
    cli: Callable[..., Ended], job: Callable[..., Path], sandbox: ThreadedSandbox
) -> None:
    """`plan` and `check` say so, `plan` shows the prompt with the rules first and what that saves; followed, the books show it."""
    config = job(ROWS, step={"prompt": BAD}, limits={"concurrency": 1})
    planned = asked(cli, sandbox, "plan", config)
    assert "row data in steps.s.prompt stand before text" in planned.out
    assert "  | Rule 0:" in planned.out
    (prefix,) = json.loads(asked(cli, sandbox, "plan", config, "--json").out)["prefixes"]
    assert prefix["verdict"] == "movable"
    assert prefix["template"] == GOOD
    assert prefix["prefix_tokens"] < 30
    assert prefix["movable_tokens"] > 1_024
    checked = asked(cli, sandbox, "check", config)
    assert "steps.s.prompt stand before text" in checked.out
    bad = json.loads(asked(cli, sandbox, "run", config, "--json").out)
    assert bad["cached_tokens"] == 0
    config = job(ROWS, step={"prompt": prefix["template"]}, limits={"concurrency": 1})
    assert "cache" not in asked(cli, sandbox, "check", config).out
    (now,) = json.loads(asked(cli, sandbox, "plan", config, "--json").out)["prefixes"]
    assert (now["verdict"], now["saving_tokens"]) == ("cached", 0)
    assert "row data in" not in asked(cli, sandbox, "plan", config).out
    good = json.loads(asked(cli, sandbox, "run", config, "--json").out)
    assert good["credits"] < 0.35 * bad["credits"]
    # What was foretold, from the size of the prompts, is what the books show, within what a guess may be off.
    assert good["cached_tokens"] == pytest.approx(prefix["saving_tokens"], rel=0.1)
    assert good["cached_tokens"] == sandbox.books.to_dict()["totals"]["cached_tokens"]


def test_the_share_by_step_and_model(
    cli: Callable[..., Ended], job: Callable[..., Path], sandbox: ThreadedSandbox
) -> None:
    """The summary says of each step and model how much was read; an endpoint that reads nothing is called that."""
    steps = [
        {"name": "s", "prompt": GOOD, "model": "fast-1"},
        {"name": "u", "prompt": "{{ s }} short", "model": "smart-1"},
    ]
    prices = {"fast-1": {"input": 4, "cached": 0.5, "output": 8}}
    config = job(ROWS, steps=steps, limits={"concurrency": 1}, prices=prices)
    ended = asked(cli, sandbox, "run", config, "--json")
    cache = json.loads(ended.out)["waste"]["saved"]["cache"]
    first, second = cache["by"]
    assert (first["step"], first["model"], second["step"], second["model"]) == ("s", "fast-1", "u", "smart-1")
    assert first["cached_tokens"] + second["cached_tokens"] == cache["prompt_tokens"]
    saved = first["cached_tokens"] * (4 - 0.5) / 1e6
    assert (first["saved_usd"], second["saved_usd"]) == (pytest.approx(saved), None)
    assert saved > 0
    assert first["share"] > 0.85
    assert first["promised_share"] > 0.95
    assert second["cached_tokens"] == 0
    asked(cli, sandbox, "report", config, "-o", "page.html")
    page = (config.parent / "page.html").read_text(encoding="utf-8")
    assert f"which saved {saved:.4f} US dollars by the configuration" in page
    assert "where" not in asked(cli, sandbox, "run", config, "--fresh").err
    with ThreadedSandbox(SandboxOptions(cache=1_000_000)) as stingy:  # it has a cache that nothing gets into
        ended = asked(cli, stingy, "run", job(ROWS, step={"prompt": GOOD}))
    assert "0% of the prompts' tokens were read from a cache" in ended.err
    assert cli("report", job(ROWS, step={"prompt": GOOD})).code in (0, 2)


@pytest.mark.parametrize(
    ("prompt", "verdict"),
    [("{{ t }}", "short"), ("{{ t * 300 }}", "below"), (GOOD, "cached"), (BAD, "movable")],
)
def test_verdicts(
    cli: Callable[..., Ended], job: Callable[..., Path], sandbox: ThreadedSandbox, prompt: str, verdict: str
) -> None:
    """Nothing to cache, too little in common, good, to be mended; one request has nothing in common with others."""
    config = job(ROWS, step={"prompt": prompt})
    (prefix,) = json.loads(asked(cli, sandbox, "plan", config, "--json").out)["prefixes"]
    assert prefix["verdict"] == verdict
    told = asked(cli, sandbox, "plan", config).out
    assert ("cache       " in told) is (verdict in ("below", "movable"))
    (one,) = json.loads(asked(cli, sandbox, "plan", job(ROWS[:1], step={"prompt": prompt}), "--json").out)[
        "prefixes"
    ]
    assert one["verdict"] == "one"


def test_schema_and_examples_count(tmp_path: Path) -> None:
    """What is the same beside the prompt counts as well: system, examples, tools and the schema."""
    schema = {"type": "object", "properties": {"label": {"enum": ["a" * 400, "b"]}}, "required": ["label"]}
    step = {
        "system": "S" * 100,
        "examples": [{"user": "u" * 50, "assistant": {"label": "b"}}],
        "schema": schema,
    }
    config = config_of(tmp_path, ["x"], "http://127.0.0.1:9/v1", step=step)
    from enrich.schema.schema import step_schema

    builder = RequestBuilder(config.steps[0], "http://127.0.0.1:9/v1", step_schema(config.steps[0]))
    prefix = Prefix(builder)
    for text in ("xylem", "xylophone", "xylitol"):
        prefix.add(builder.ask(builder.prepare({"t": text})))
    assert builder.constant_bytes > 400
    assert 0 <= prefix.common - builder.constant_bytes - 150 - len('{"label": "b"}') < 200


@pytest.mark.parametrize(
    ("source", "moved"),
    [
        ("{{ t }}\n\nRules.", "Rules.\n\n{{ t }}"),
        ("A\n{{ t }}\nB", "A\nB\n{{ t }}"),
        ("A\n\n{{ t }}", None),
        ("{{ t }}", None),
        ("{% if t %}x{% endif %}\n\nB", None),
    ],
)
def test_constant_paragraphs_first(source: str, moved: str | None) -> None:
    """Paragraphs keep their order among themselves; what cannot be told is left alone."""
    assert constant_first(source) == moved


def test_prefix_of_bytes(tmp_path: Path) -> None:
    """It is the longest that all bodies share, whatever their order."""
    import random

    config = config_of(tmp_path, ["x"], "http://127.0.0.1:9/v1")
    chance = random.Random(0)
    builder = RequestBuilder(config.steps[0], "http://127.0.0.1:9/v1", None)
    for _ in range(200):
        same = "".join(chance.choices("ab", k=chance.randrange(20)))
        texts = [same + "".join(chance.choices("ab", k=chance.randrange(9))) for _ in range(5)]
        prefix = Prefix(builder)
        for text in texts:
            prefix.add(Ask(bytes(16), b'{"model":"m","messages":[' + text.encode(), "m"))
        shared = next(
            n
            for n in range(29, -1, -1)
            if len({t[:n] for t in texts if len(t) >= n}) == 1 and all(len(t) >= n for t in texts)
        )
        assert prefix.common == shared
