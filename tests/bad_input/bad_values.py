"""Values of the wrong kind or beyond any sense, in every key of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.bad_input.case import (
    BASE,
    LEGAL,
    REFUSED,
    RUN,
    STEP,
    Case,
    Named,
    config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


NUMBERS: tuple[tuple[str | int, ...], ...] = (
    ("endpoint", "timeout"),
    ("limits", "concurrency"),
    ("limits", "requests_per_minute"),
    ("limits", "tokens_per_minute"),
    ("limits", "windows", 0, "seconds"),
    ("limits", "windows", 0, "requests"),
    ("limits", "windows", 0, "tokens"),
    ("retry", "attempts"),
    ("retry", "max_wait"),
    ("retry", "deadline"),
    ("budget", "credits"),
    ("budget", "tokens"),
    ("budget", "requests"),
    ("output", "row_group_rows"),
    ("tolerate",),
    (*STEP, "temperature"),
    (*STEP, "top_p"),
    (*STEP, "max_tokens"),
    (*STEP, "max_completion_tokens"),
    (*STEP, "reask"),
    (*STEP, "limits", "concurrency"),
    (*STEP, "limits", "requests_per_minute"),
)
NO_NUMBERS: dict[str, Any] = {
    "inf": float("inf"),
    "-inf": float("-inf"),
    "nan": float("nan"),
    "true": True,
    "false": False,
    "-1": -1,
    "words": "some",
    "list": [1],
    "mapping": {"a": 1},
    "full-width digits": "\uff11\uff12",
    "underscores": "1_0",
    "-0.5": -0.5,
    "inf in words": "inf",
    "nan in words": "NaN",
}
ODD_NUMBERS: dict[str, Any] = {
    "1e-320": 1e-320,
    "1e308": 1e308,
    "10**30": 10**30,
    "2**63": 2**63,
    "0": 0,
    "half": 0.5,
    "quoted": "1",
    "1e-9": 1e-9,
    "minus zero": -0.0,
}


def numbers() -> Iterator[Named]:
    """Numbers that are none, in every key that takes one."""
    windows = {"limits": {"windows": [{"requests": 1000, "seconds": 60}]}}
    for key in NUMBERS:
        top = windows if "windows" in key else {}
        for name, value in NO_NUMBERS.items():
            yield f"{'.'.join(map(str, key))}: {name}", Case(config(*key, value=value, **top))
        for name, value in ODD_NUMBERS.items():
            yield (
                f"{'.'.join(map(str, key))}: {name}",
                Case(
                    config(*key, value=value, **top),
                    args=(*RUN, "--limit", "1"),
                    codes=REFUSED if name == "1e-320" else LEGAL | {4},
                ),
            )


def params() -> Iterator[Named]:
    """Request fields of the wrong kind."""
    for name, value in {
        **{f"temperature {n}": {"temperature": v} for n, v in NO_NUMBERS.items() if n != "-0.5"},
        **{f"top_p {n}": {"top_p": v} for n, v in NO_NUMBERS.items()},
        **{f"max_tokens {n}": {"max_tokens": v} for n, v in NO_NUMBERS.items()},
        "stream_options as a text": {"stream_options": "x"},
        "a float in a list": {"stop": [float("nan")]},
    }.items():
        yield (
            f"params: {name}",
            Case(config(*STEP, "params", value=value, steps=[{**BASE["steps"][0], "stream": True}])),
        )
    for name, value in {
        "a key that is a number": {1: 2},
        "a nested inf": {"a": {"b": [float("inf")]}},
        "a lone surrogate": {"user": "a\ud800"},
        "a NUL": {"user": "a\0b"},
        "a deep value": nested(30),
        "a template that fails": {"user": "{{ 1 / 0 }}"},
        "a template of inf": {"user": "{{ 1e308 * 10 }}"},
    }.items():
        yield f"params: {name}", Case(config(*STEP, "params", value=value), codes=LEGAL)


def nested(depth: int) -> Any:
    """Give a mapping of so many levels."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


NO_WORDS: tuple[Any, ...] = (
    "", " ", "PARQUET ", "x" * 5_000, "parquet\n", 1, True, [], {}, "é", "\0", "json\r\n",
)  # fmt: skip
NO_FLAGS: tuple[Any, ...] = ("maybe", "", 2, -1, 0.5, [], {}, float("nan"))
OTHER_KINDS: tuple[Any, ...] = (1, 0.5, True, [], {}, [[]], [{}], {"a": []}, "", " ")
ENUMS: tuple[tuple[str | int, ...], ...] = (
    ("input", "format"),
    ("output", "format"),
    ("output", "compression"),
    ("input", "csv", "bad_rows"),
    ("endpoint", "stream_end"),
    (*STEP, "on_null"),
    (*STEP, "schema_mode"),
    (*STEP, "on_truncated"),
)


def enums() -> Iterator[Named]:
    """Words that are none of those known."""
    for key in ENUMS:
        for value in NO_WORDS:
            yield f"{'.'.join(map(str, key))}: {value!r:.20}", Case(config(*key, value=value))


FLAGS: tuple[tuple[str | int, ...], ...] = (
    ("dedupe",),
    ("limits", "adaptive"),
    ("input", "csv", "header"),
    ("output", "partitioned"),
    (*STEP, "stream"),
    (*STEP, "repair"),
)


def flags() -> Iterator[Named]:
    """Switches that are neither on nor off."""
    for key in FLAGS:
        for value in NO_FLAGS:
            yield f"{'.'.join(map(str, key))}: {value!r}", Case(config(*key, value=value))


STRINGS: tuple[tuple[str | int, ...], ...] = (
    ("input",),
    ("output",),
    ("ledger",),
    ("report",),
    ("input", "columns"),
    ("input", "partitions"),
    ("input", "csv", "null_values"),
    ("input", "csv", "encoding"),
    ("input", "csv", "types"),
    ("input", "csv", "reject_file"),
    ("endpoint",),
    ("endpoint", "headers"),
    ("endpoint", "api_key_env"),
    ("endpoint", "api_key_file"),
    ("endpoint", "ca_file"),
    ("steps",),
    (*STEP,),
    (*STEP, "name"),
    (*STEP, "prompt"),
    (*STEP, "system"),
    (*STEP, "examples"),
    (*STEP, "messages"),
    (*STEP, "model"),
    (*STEP, "fallback_models"),
    (*STEP, "params"),
    (*STEP, "when"),
    (*STEP, "check"),
    (*STEP, "schema"),
    (*STEP, "limits"),
    ("limits",),
    ("limits", "windows"),
    ("retry",),
    ("budget",),
)


def kinds() -> Iterator[Named]:
    """Values of another kind than a key takes."""
    for key in STRINGS:
        for value in OTHER_KINDS:
            case = config(*key, value=value)
            yield f"{'.'.join(map(str, key))}: {value!r}", Case(case, codes=LEGAL)
