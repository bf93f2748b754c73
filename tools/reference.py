"""Write docs/reference from the code: `python -m tools.reference`. A test holds the committed pages to it.

It is long because it is one page after another, with the prose that stands between their tables.
"""

from __future__ import annotations

import inspect
import json
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pyarrow as pa

import enrich
from enrich import errors
from enrich.cli.app import EXIT_CODES, main
from enrich.config import Config
from enrich.config.problems import model_in
from enrich.prompt.cells import rows_of
from enrich.prompt.template import compile_template
from enrich.records import STATUSES
from enrich.schema.choice import FURTHER_COLUMNS, RECORD_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Made from the code by `python -m tools.reference`; edit the code instead. -->"

# What each column means, and where it comes from on the wire.
COLUMN_MEANINGS = {
    "status": (
        "how the row stands; see [Statuses](../concepts/statuses.md)",
        "the finish reason, the schema, `check`",
    ),
    "error": (
        "null, or `code: message`",
        "`error.code` and `error.message`, or what is wrong with the answer",
    ),
    "model": ("the model that served it; with `model: auto` it differs from what was asked", "`model`"),
    "request_id": (
        "of the answering response, on failure of the last error: what support asks for",
        "the header `X-Request-Id`",
    ),
    "finish_reason": (
        "why the answer ended, as the model says: `stop`, `length`, `content_filter`, …",
        "`choices[0].finish_reason`",
    ),
    "prompt_tokens": ("null when the server sent no usage", "`usage.prompt_tokens`"),
    "completion_tokens": ("null when the server sent no usage", "`usage.completion_tokens`"),
    "total_tokens": ("null when the server sent no usage", "`usage.total_tokens`"),
    "credits": ("Beatra's charge", "`usage.credits`"),
    "attempts": ("requests sent for this row, over all runs", "counted"),
    "latency_ms": ("of the answering attempt, in milliseconds", "measured"),
    "source": (
        "`api` (asked in this run), `ledger` (paid for in an earlier run), `copy` (same request as an earlier row)",
        "the ledger",
    ),
    "idempotency_key": ("the key that the request is paid for once under", "the header `Idempotency-Key`"),
    "cached_tokens": (
        "those of the prompt's tokens that were read from a cache; null where the endpoint does not tell",
        (
            "`usage.prompt_tokens_details.cached_tokens`, or `input_tokens_details`, `prompt_cache_hit_tokens`, "
            "`cache_read_input_tokens`, `cached_tokens`"
        ),
    ),
    "reasoning_tokens": (
        "those of the completion's tokens that were thought and not said; null where the endpoint does not tell",
        "`usage.completion_tokens_details.reasoning_tokens`, or `output_tokens_details`, `reasoning_tokens`",
    ),
    "credits_usd": ("the charge in US dollars, for show", "`usage.credits_usd_reference`"),
    "reasoning": (
        (
            "what the model thought, where that comes apart from the text or within marks before it; standard where the request "
            "asks for it"
        ),
        (
            "`message.reasoning_content`, or `reasoning`, `thinking`, `reasoning_details`, `thinking_blocks`, parts of the "
            "content; `<think>` and other marks"
        ),
    ),
    "tool_calls": (
        "the calls that the model made, in order, arguments as JSON text; standard where the request offers tools",
        "`message.tool_calls`, or `function_call`",
    ),
    "refusal": ("what the model said in refusing", "`message.refusal`, or a part of the content"),
    "logprob": (
        "mean natural logarithm of the tokens' probabilities; standard where the request asks for `logprobs`",
        "`choices[0].logprobs.content[].logprob`",
    ),
    "confidence": (
        (
            "between 0 and 1: the probability of the answer's own tokens; with fields that are enums, of their labels against the "
            "others where `top_logprobs` came; standard where the request asks for `logprobs`"
        ),
        "`choices[0].logprobs`",
    ),
    "votes": ("how many answers were counted; standard where the step has `votes`", "counted"),
    "agreement": (
        "the share of them that say what counts, of the field most in dispute; standard where the step has `votes`",
        "counted",
    ),
    "system_fingerprint": ("of the server's configuration", "`system_fingerprint`"),
}
CHOICE = """## Which of them are written

`columns` of a step says which of its columns are written, and in which order: a list of names (`status`, `model`, a property of
the schema …) and words.

| word | means |
|---|---|
| `answer` | the text and the typed fields |
| `text`, `fields` | one without the other |
| `tokens` | prompt, completion and total tokens |
| `minimal` | `answer`, `status`, `error` |
| `standard` | the first table, and of the second what the request asks for; so it is where nothing is said |
| `all` | both tables |

`rename` gives columns other names, `output.columns` chooses among those of the input:

```yaml
output: {path: out.parquet, columns: [id]}
steps:
  - name: tone
    prompt: "The tone of: {{ review }}"
    columns: [answer, status, error, model, credits_usd]
    rename: {answer: tone_of_voice}
```

What is left out is not lost: it stays in the ledger, and `collect` with another choice writes it at no cost. Later steps see an
answer's text and fields, `s_status`, `s_error` and `s_model` under their usual names, written or not. The choice is no part of any
request. Data frames take the same: `df.beatra.complete(…, columns="minimal")`, or a list.

## Tools

With `tools` among `params` an answer may be a call instead of a text: the row is `ok`, `s` is null, and `s_tool_calls` holds the calls.
Where `tool_choice` makes the model call a tool and the step has a `schema`, the arguments are the answer: they are held to the
schema and become typed columns, as JSON in a text does.

```yaml
steps:
  - name: rating
    prompt: "Rate: {{ review }}"
    schema: {type: object, properties: {stars: {type: integer}}, required: [stars]}
    params:
      tools: [{type: function, function: {name: rate, parameters: {type: object, properties: {stars: {type: integer}}}}}]
      tool_choice: {type: function, function: {name: rate}}
```"""


def pages() -> dict[str, str]:
    """Give every page of the reference by its file's name."""
    return {
        "configuration.md": configuration(),
        "command-line.md": command_line(),
        "columns.md": columns(),
        "prompts.md": prompts(),
        "exit-codes.md": exit_codes(),
        "python.md": python(),
    }


# --- prompts --------------------------------------------------------------------------------------------

ZONE = pa.timestamp("us", "Europe/Berlin")
EXAMPLES: tuple[tuple[str, pa.Array[Any]], ...] = (
    ("string, large_string, string_view; categories", pa.array(["Ä <b>"])),
    ("int8 … uint64", pa.array([5])),
    ("float16, float32", pa.array([19.99], pa.float32())),
    ("float64", pa.array([7.0])),
    ("float64: an infinity", pa.array([float("inf")])),
    ("decimal", pa.array([Decimal("0E-10")], pa.decimal128(12, 10))),
    ("bool", pa.array([True])),
    ("date", pa.array([20455], pa.int32()).cast(pa.date32())),
    ("date: DuckDB's or PostgreSQL's infinity", pa.array([2**31 - 1], pa.int32()).cast(pa.date32())),
    ("date past 9999", pa.array([3_000_000], pa.int32()).cast(pa.date32())),
    ("timestamp", pa.array([1_500_000], pa.int64()).cast(pa.timestamp("us"))),
    ("timestamp with a zone: as its clocks show it", pa.array([0], pa.int64()).cast(ZONE)),
    ("timestamp in nanoseconds", pa.array([1], pa.int64()).cast(pa.timestamp("ns"))),
    ("time", pa.array([3_600_000_000], pa.int64()).cast(pa.time64("us"))),
    ("duration", pa.array([90_061], pa.int64()).cast(pa.duration("s"))),
    ("interval: months, days, nanoseconds", pa.array([(1, 2, 3)], pa.month_day_nano_interval())),
    ("list", pa.array([["a", None]])),
    ("struct", pa.array([{"n": 1, "day": date(2026, 1, 2)}])),
    ("map", pa.array([[("b", 1), ("a", 2)]], pa.map_(pa.string(), pa.int8()))),
    ("UUID", pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16)))),
)


def prompts() -> str:
    """List how values of every type become text in a prompt."""
    lines = ["| Arrow type | `{{ x }}` | `{{ x \\| tojson }}` |", "|---|---|---|"]
    for name, array in EXAMPLES:
        (row,) = rows_of(pa.record_batch([array], names=["x"]))
        texts = [compile_template(source, "").render(row) for source in ("{{ x }}", "{{ x | tojson }}")]
        lines.append(f"| {name} | `{texts[0]}` | `{texts[1]}` |")
    return "\n\n".join([NOTE, "# Values in prompts", PROMPTS_BEGIN, "\n".join(lines), PROMPTS_END]) + "\n"


PROMPTS_BEGIN = """A prompt is a function of its row alone: what a value looks like in it hangs on no other row, no inferred type and no clock.

**Text files** (CSV, TSV, JSON Lines, names of partition folders): the characters that stand there. `5` stays `5` and `true`
stays `true` whatever other rows hold; keys that a JSON object has not stay absent. In expressions a cell counts as what it is:
`{{ stars < 3 }}` compares numbers, `{{ price * 2 }}` computes, ISO dates compare as dates and have `.year` and the like. What
is written as JSON would write a number, `true` or `false` is one for `tojson`, all else a text. A column that `input.csv.types`
declares as `string` is text and nothing else.

**Parquet, Arrow, data frames, record batches**: by the value's type, as below."""

PROMPTS_END = """A null, or NaN, obeys the step's `on_null` at any depth: as a whole column before anything is rendered, within a list or struct
where it would become text. `tojson` writes it as `null`. Bytes have no text, and none as JSON: a column
with some in it is refused by name, whether a prompt names it or writes `{{ row }}` as a whole. A value that cannot be had (a zone
that the machine does not know, bytes that are no UTF-8) fails its row by name.

`when` judges the value: zero in any spelling, null, NaN, empty lists, structs and texts, `false`, `no`, `none` and `null` are false.
So do its `and`, `or`, `not` and `if`: `{{ sold and stars > 3 }}`. In a prompt these go by the value as Python does, but NaN is false.

Dates, times and moments compare with texts, whatever file they come from: `{{ day > '2026-11-22' }}`,
`{{ at < '2026-11-22T10:30' }}`. A text without a zone is what the column's own clocks show. One that says nothing of the kind
(`'22.11.2026'`) fails the row, where the column has a type.

Periods and intervals of pandas are what pandas writes for them, `2026Q1` and `(0, 1]`, from a data frame and from a file. In a
column of Python objects each value has the text that it would have in a column of its own type.

Dot and brackets find data before anything of Python's: `{{ row.items }}` is a column, `row.items()` gives every column with its
value. `{{ row["a b"] }}` reaches any name, also `row`, `self` and `loop`, which the template engine keeps. What would give another
text at every run (`random`, `now()`, `today()`) is refused.

`prompt_text: 1` in a step spells values as versions before 0.9 did, for answers that were paid for by those."""


# --- configuration --------------------------------------------------------------------------------------


def configuration() -> str:
    """List every key with its type, default and meaning."""
    schema = Config.model_json_schema(by_alias=True)
    parts = [
        NOTE,
        "# Configuration",
        (
            "One YAML file is one job. Unknown keys are errors, relative paths are relative to the file, and `${NAME}` is "
            "taken from the environment, except in templates. `beatra-enrich schema` prints the JSON Schema, for editors."
        ),
        (
            "The key to the API is never in this file: it comes from `BEATRA_API_KEY`, or from where `endpoint.api_key_env` "
            "or `endpoint.api_key_file` points."
        ),
        "## The file",
        _keys(Config, schema, schema),
    ]
    for title, model in _sections(Config):
        parts += [f"## `{title}`", _about(model), _keys(model, schema["$defs"][model.__name__], schema)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections(model: type[BaseModel], place: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Walk the models that a model's keys hold, with where they stand."""
    for name, info in model.model_fields.items():
        inner = model_in(info.annotation)
        if inner is not None:
            yield f"{place}{info.alias or name}", inner
            yield from _sections(inner, f"{place}{info.alias or name}.")


def _about(model: type[BaseModel]) -> str:
    return inspect.getdoc(model).partition("\n")[0]  # type: ignore[union-attr]  # every section has one


def _keys(model: type[BaseModel], node: dict[str, Any], schema: dict[str, Any]) -> str:
    meanings = _meanings(model)
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        key = info.alias or name
        part = node["properties"][key]
        required = key in node.get("required", ())
        default = "required" if required else _default(part.get("default"), part)
        lines.append(f"| `{key}` | {_type(part, schema)} | {default} | {meanings[name]} |")
    return "\n".join(lines)


def _meanings(model: type) -> dict[str, str]:
    """Read the ``Attributes:`` of a class and of those it is made from."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        _, _, listed = (inspect.cleandoc(base.__doc__ or "")).partition("Attributes:\n")
        found |= dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE))
    return {name: re.sub(r"\s+", " ", text).replace("|", "\\|") for name, text in found.items()}


def _default(value: Any, part: dict[str, Any]) -> str:
    if value is None or value in ({}, []) or "$ref" in part:
        return ""
    return (
        f"`{value:g}`"
        if isinstance(value, float)
        else f"`{json.dumps(value)}`".replace('`"', "`").replace('"`', "`")
    )


def _type(part: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in part:
        return "mapping"
    if "anyOf" in part:
        kinds = [_type(branch, schema) for branch in part["anyOf"] if branch.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    kind = {
        "string": "text",
        "integer": "integer",
        "number": "number",
        "boolean": "boolean",
        "object": "mapping",
    }
    if part.get("type") == "array":
        item = _type(part["items"], schema)
        return f"list of {item if item.endswith('s') or ',' in item else item + 's'}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    limits = [f"{sign} {part[name]:g}" for name, sign in bounds.items() if name in part]
    return " ".join([kind.get(part.get("type", ""), "anything"), ", ".join(limits)]).strip()


# --- the command line -----------------------------------------------------------------------------------


def command_line() -> str:
    """Give the help of every command, as it prints it."""
    parts = [
        NOTE,
        "# Command line",
        "Progress and logs go to stderr, results to stdout.",
        _help(main, "beatra-enrich"),
    ]
    for path, command in _commands(main, "beatra-enrich"):
        parts += [f"## {path.partition(' ')[2]}", _help(command, path)]
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")


def _help(command: click.Command, path: str) -> str:
    context = click.Context(
        command,
        info_name=path,
        terminal_width=96,
        max_content_width=96,
        help_option_names=["-h", "--help"],
    )
    return f"```text\n{command.get_help(context)}\n```"


# --- columns, codes -------------------------------------------------------------------------------------


def columns() -> str:
    """List the columns that a step adds."""
    lines = [
        *COLUMN_TABLE,
        "| `s` | string | the answer's text (with a schema: the raw text) | `choices[0].message.content` |",
        "| `s_<field>` | from the schema | one typed column per top-level property, nested ones as struct or list | the JSON in it |",
        *map(_column, RECORD_COLUMNS),
    ]
    return (
        "\n\n".join(
            [
                NOTE,
                "# What each column is",
                "All input columns, untouched and in input order, one output row per input row; then, for a step named `s`:",
                "\n".join(lines),
                (
                    "These are written where a step's `columns` names them, some also where the request asks for what they show "
                    "(`params.tools`, `params.logprobs`, `params.reasoning_effort` …):"
                ),
                "\n".join([*COLUMN_TABLE, *map(_column, FURTHER_COLUMNS)]),
                PROVED,
                f"A status is one of {', '.join(f'`{status}`' for status in STATUSES)}.",
                (
                    "Usage and credits stand on exactly one row per completion (0 on `copy` rows), so a column's sum is what the "
                    "answers cost. A column of the input that has one of these names is refused before anything is sent."
                ),
                CHOICE,
                EXPLODED,
                "## The manifest",
                (
                    "The output's metadata carries a manifest of the run (version, fingerprints of configuration and templates, "
                    "counts per status, totals): in the file for Parquet and Arrow, beside it as `<output>.manifest.json` for text."
                ),
            ]
        )
        + "\n"
    )


PROVED = """With `votes` there is one more for each field that is voted on: `s_<field>_first`, of the field's type, or `s_first` where the answer is a text: what the first answer said, null where it did not fit.

With `pin` there is `s_model_changed` (bool): whether another model had a part in the answer than the one that answered first; and `s_system_fingerprint` is standard.

For each field that a step's `evidence` names there are three more, of a list lists with a place for each element:

| column | Arrow type | meaning | comes from |
|---|---|---|---|
| `s_<field>_start`, `s_<field>_end` | int64 | where the value stands in the text of `from`, in characters from 0; null where it does not | compared |
| `s_<field>_match` | dictionary&lt;string&gt; | `exact`, `normalised`, `fuzzy` or `none`; null where nothing is said | compared |"""


EXPLODED = """## One row to many

With `explode: topics` in the last step the output has one row for each element of the list `topics` of its schema:

| column | Arrow type | holds |
|---|---|---|
| `s_topics` | the type of an element; of objects a struct of their fields | one element |
| `s_index` | int64 | its place in the list, from 0 |
| tokens, `s_credits`, `s_credits_usd`, `s_attempts`, of every step | as above | on the row with place 0; on the others 0, or null where it is null there: sums hold |
| all others, the input's too | as above | the same on each of these rows |

A list that is empty or null, and a row without an answer, make one row: both columns are null, the status says why. Counts of rows
(summary, `status`, manifest, report, `tolerate`) are of input rows, and so is a resume."""


COLUMN_TABLE = ("| column | Arrow type | meaning | comes from |", "|---|---|---|---|")


def _column(column: tuple[str, pa.DataType]) -> str:
    """Write the line of one column."""
    suffix, kind = column
    shown = "dictionary<string>" if pa.types.is_dictionary(kind) else str(kind).replace("double", "float64")
    shown = shown.replace("<", "&lt;").replace(">", "&gt;")
    return f"| `s_{suffix}` | {shown} | {' | '.join(COLUMN_MEANINGS[suffix])} |"


def exit_codes() -> str:
    """List the exit codes and the errors behind them."""
    lines = [line.strip() for line in EXIT_CODES.splitlines()[2:]]
    text = re.sub(r"\s*\n(?!\d)", " ", "\n".join(lines))
    codes = [line.split(maxsplit=1) for line in text.splitlines()]
    table = ["| exit code | meaning |", "|---|---|", *(f"| {code} | {meaning} |" for code, meaning in codes)]
    tree = ["| error | exit code | meaning |", "|---|---|---|"]
    for error in _tree(errors.EnrichError):
        meaning = (inspect.getdoc(error) or "").partition("\n")[0]
        tree.append(f"| `enrich.{error.__name__}` | {error.exit_code} | {meaning} |")
    return (
        "\n\n".join(
            [
                NOTE,
                "# Exit codes and errors",
                "\n".join(table),
                (
                    "The output is only ever replaced by a run that ends with 0 or 3. From Python, what is found before anything "
                    "is sent is raised as one of these; a run that stops early returns a summary with that `exit_code`."
                ),
                "\n".join(tree),
            ]
        )
        + "\n"
    )


def _tree(error: type[errors.EnrichError]) -> Iterator[type[errors.EnrichError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ == "enrich.errors":
            yield from _tree(child)


# --- Python ---------------------------------------------------------------------------------------------


def python() -> str:
    """Give the signatures and docstrings of what is public."""
    parts = [NOTE, "# Python", _public("import enrich")]
    for name in enrich.__all__:
        thing = getattr(enrich, name)
        if inspect.isfunction(thing):
            parts.append(_documented(f"enrich.{name}", thing))
    parts += ["## enrich.Summary", _docstring(enrich.Summary)]
    parts += ["## Errors", "See [Exit codes and errors](exit-codes.md)."]
    from enrich.pandas import FrameAccessor, SeriesAccessor

    parts.append("## df.beatra, series.beatra")
    parts.append(
        "`import enrich.pandas` gives every pandas DataFrame and Series this accessor; `import enrich.polars` gives "
        "Polars the same."
    )
    for owner, holder in (("df.beatra", FrameAccessor), ("series.beatra", SeriesAccessor)):
        for name, method in vars(holder).items():
            if not name.startswith("_") and inspect.isfunction(method):
                parts.append(_documented(f"{owner}.{name}", method, level=3))
    return "\n\n".join(parts) + "\n"


def _public(line: str) -> str:
    return f"```python\n{line}\n```"


def _documented(name: str, function: Any, level: int = 2) -> str:
    return f"{'#' * level} {name}\n\n{_call(name, function)}\n\n{_docstring(function)}"


def _call(name: str, function: Any) -> str:
    """Write a function's parameters with their defaults, one a line when they are many."""
    parameters = [
        p.replace(annotation=p.empty)
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]
    short = f"{name}{inspect.Signature(parameters)}"
    if len(short) > 96:
        inner = str(inspect.Signature(parameters))[1:-1]
        short = f"{name}(\n    " + ",\n    ".join(re.split(r", (?=[\w*])", inner)) + ",\n)"
    return f"```text\n{short}\n```"


def _docstring(thing: Any) -> str:
    """Turn a docstring in Google's style into Markdown."""
    text = inspect.getdoc(thing) or ""
    parts: list[str] = []
    for block in re.split(r"\n\n(?=\S)", text):
        title, _, rest = block.partition("\n")
        if re.fullmatch(r"(Args|Attributes|Returns|Raises|Example|Examples|Yields):", title):
            parts.append(_section(title.rstrip(":"), inspect.cleandoc(rest)))
        else:
            parts.append(" ".join(block.split()))
    return re.sub(r"(?<!`)``(?!`)", "`", "\n\n".join(parts))


def _section(title: str, body: str) -> str:
    if title.startswith("Example"):
        return f"**Example**\n\n```pycon\n{body}\n```"
    items = re.split(r"\n(?=\S)", body)
    if title in ("Args", "Attributes", "Raises"):
        lines = [re.sub(r"^([\w, ]+): ", r"`\1`: ", " ".join(item.split())) for item in items]
        return f"**{title}**\n\n" + "\n".join(f"- {line}" for line in lines)
    return f"**{title}**\n\n" + " ".join(body.split())


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
