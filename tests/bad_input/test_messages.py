"""The mistakes people make most, and the one message each gets: nothing is sent, nothing is left behind.

It is long because it is one table, a mistake an entry, and short below that.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from enrich.cli.app import main
from tests.helpers.endpoint import KEY, BookedEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = """\
input: in.csv
output: out/out.parquet
steps:
  - name: s
    prompt: "Classify: {{ review }}"
"""
CSV = "id,review,stars\n1,good,5\n2,bad,1\n"
KEYS = "Hint: beatra-enrich schema prints every key there is."


@dataclass(frozen=True)
class Mistake:
    """What is wrong, and what is said about it: the words after `Error: `, with DIR for the folder.

    Attributes:
        config: the configuration file.
        csv: the input; None leaves it out.
        args: the command line.
        files: further files.
        env: changes to the environment.
    """

    said: str
    config: str = CONFIG
    csv: str | bytes | None = CSV
    args: tuple[str, ...] = ("run", "config.yaml")
    files: dict[str, str | bytes] = field(default_factory=dict)
    env: dict[str, str | None] = field(default_factory=dict)


def top(**keys: Any) -> str:
    """Give the configuration with some keys changed."""
    return yaml.safe_dump({**yaml.safe_load(CONFIG), **keys}, sort_keys=False)


def step(**keys: Any) -> str:
    """Give the configuration with keys of its step changed; None removes one."""
    changed = {"name": "s", "prompt": "Classify: {{ review }}", **keys}
    return top(steps=[{key: value for key, value in changed.items() if value is not None}])


def parquet(table: pa.Table) -> bytes:
    """Give a table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def csv_options(**options: Any) -> str:
    """Give the configuration with options for its CSV input."""
    return top(input={"path": "in.csv", "csv": options})


NO_KEY: dict[str, str | None] = {"BEATRA_API_KEY": None, "BEATRA_BASE_URL": None}
SET = ("run", "config.yaml", "--set")
TWO_OF_A_NAME = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["review", "review"])

MISTAKES = {
    # the file
    "no file": Mistake(
        "no configuration file confg.yaml\nHint: did you mean `config.yaml`?",
        args=("run", "confg.yaml"),
    ),
    "no file, nor one like it": Mistake(
        "no configuration file jobs/a.yaml\nHint: beatra-enrich init makes one.",
        args=("run", "jobs/a.yaml"),
    ),
    "a folder": Mistake(
        "the configuration file . cannot be read: is a directory",
        args=("run", "."),
    ),
    "empty file": Mistake(
        "config.yaml holds no mapping of keys\nHint: beatra-enrich init makes a file to start from.",
        config="",
    ),
    "no mapping": Mistake(
        "config.yaml holds no mapping of keys\nHint: beatra-enrich init makes a file to start from.",
        config="- a\n",
    ),
    "data instead of a configuration": Mistake(
        "in.csv holds no mapping of keys\nHint: beatra-enrich init makes a file to start from.",
        args=("run", "in.csv"),
    ),
    "binary data instead of a configuration": Mistake(
        "the configuration file c.parquet is not UTF-8 at byte 4\nHint: save it as UTF-8.",
        args=("run", "c.parquet"),
        files={"c.parquet": b"PAR1\xff"},
    ),
    "a tab": Mistake(
        "config.yaml: line 2, column 1 found character '\\t' that cannot start any token\n"
        "Hint: check the indentation; quote a text that holds `: ` or begins with `{`.",
        config="input: in.csv\n\toutput: c\n",
    ),
    "an unquoted colon": Mistake(
        "config.yaml: line 5, column 21 mapping values are not allowed here\n"
        "Hint: check the indentation; quote a text that holds `: ` or begins with `{`.",
        config=CONFIG.replace('"Classify: {{ review }}"', "Classify: {{ review }}"),
    ),
    "an unquoted template": Mistake(
        "config.yaml: line 5: a text that begins with `{` must be quoted\n"
        'Hint: write for example prompt: "{{ review }}", or put the text on lines of its own after `|`.',
        config=CONFIG.replace('"Classify: {{ review }}"', "{{ review }}"),
    ),
    "a key twice": Mistake(
        "config.yaml: line 6: the key `output` stands twice\nHint: remove one.",
        config=CONFIG + "output: b.csv\n",
    ),
    "an alias": Mistake(
        "config.yaml: line 2: YAML aliases (`*name`) are not accepted\n"
        "Hint: write the value out; a text that begins with `*`, such as a glob, must be quoted.",
        config="input: &a in.csv\noutput: *a\nsteps: []\n",
    ),
    "a glob without quotes": Mistake(
        "config.yaml: line 1, column 9 a text that begins with `*` must be quoted\n"
        'Hint: write for example input: "*.csv"',
        config=CONFIG.replace("in.csv", "*.csv"),
    ),
    "a YAML bomb": Mistake(
        "config.yaml: the YAML is nested deeper than 32 levels\nHint: flatten it.",
        config=CONFIG + "ledger: " + "[" * 50 + "]" * 50,
    ),
    "a tag that runs code": Mistake(
        "config.yaml: line 1, column 8 could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'\n"
        "Hint: check the indentation; quote a text that holds `: ` or begins with `{`.",
        config="input: !!python/object:os.system x\n",
    ),
    "a number of 5,000 digits": Mistake(
        "config.yaml: not valid YAML\n"
        "Hint: check the indentation; quote a text that holds `: ` or begins with `{`.",
        config=CONFIG + "tolerate: " + "9" * 5_000 + "\n",
    ),
    "a control character": Mistake(
        "config.yaml: special characters are not allowed\n"
        "Hint: check the indentation; quote a text that holds `: ` or begins with `{`.",
        config=CONFIG + "# \x01\n",
    ),
    # keys
    "unknown key": Mistake(
        f"config.yaml is not valid:\n  ouput: unknown key; did you mean `output`?\n{KEYS}",
        config=top(ouput="x"),
    ),
    "unknown key in a step": Mistake(
        f"config.yaml is not valid:\n  steps.s.promt: unknown key; did you mean `prompt`?\n{KEYS}",
        config=step(promt="x"),
    ),
    "unknown key in a section": Mistake(
        f"config.yaml is not valid:\n  limits.concurency: unknown key; did you mean `concurrency`?\n{KEYS}",
        config=top(limits={"concurency": 3}),
    ),
    "the API key in the file": Mistake(
        "config.yaml is not valid:\n"
        "  endpoint.api_key: a key does not belong in this file; export BEATRA_API_KEY=…, or name a file with `endpoint.api_key_file`\n"
        f"{KEYS}",
        config=top(endpoint={"api_key": KEY}),
    ),
    "no input": Mistake(
        f"config.yaml is not valid:\n  input: this key is required\n{KEYS}",
        config=CONFIG.replace("input: in.csv", "input:"),
    ),
    "no output": Mistake(
        f"config.yaml is not valid:\n  output: this key is required\n{KEYS}",
        config=CONFIG.replace("output: out/out.parquet\n", ""),
    ),
    "no steps": Mistake(
        f"config.yaml is not valid:\n  steps: must have at least one item\n{KEYS}",
        config=top(steps=[]),
    ),
    "steps as a mapping": Mistake(
        f"config.yaml is not valid:\n  steps: must be a list\n{KEYS}",
        config=top(steps={"s": {"prompt": "x"}}),
    ),
    "a step that is a text": Mistake(
        f"config.yaml is not valid:\n  steps.0: must be a mapping of keys (it is 'Classify')\n{KEYS}",
        config=top(steps=["Classify"]),
    ),
    "a step without a name": Mistake(
        f"config.yaml is not valid:\n  steps.0.name: this key is required\n{KEYS}",
        config=top(steps=[{"prompt": "x"}]),
    ),
    "a step's name with a dash": Mistake(
        "config.yaml is not valid:\n"
        "  steps.my-step.name: must be one word of letters, digits and _, not beginning with a digit (it is 'my-step')\n"
        f"{KEYS}",
        config=step(name="my-step"),
    ),
    "two steps of one name": Mistake(
        "config.yaml is not valid:\n"
        "  steps: two steps are named `s`; names prefix the output columns and must differ\n"
        f"{KEYS}",
        config=top(steps=[{"name": "s", "prompt": "x"}, {"name": "s", "prompt": "y"}]),
    ),
    "a step without a prompt": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s: a step needs `prompt`, `prompt_file`, `messages` or `messages_file`\n"
        f"{KEYS}",
        config=step(prompt=None),
    ),
    "prompt and messages": Mistake(
        f"config.yaml is not valid:\n  steps.s: `prompt` and `messages` exclude each other; keep one\n{KEYS}",
        config=step(messages=[{"role": "user", "content": "x"}]),
    ),
    "system beside messages": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s: `system` stands beside `prompt`; among `messages` write `{role: system, content: …}`\n"
        f"{KEYS}",
        config=step(prompt=None, system="x", messages=[{"role": "user", "content": "x"}]),
    ),
    "an unknown role": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s.messages.0.role: must be 'system', 'user' or 'assistant' (it is 'developer')\n"
        f"{KEYS}",
        config=step(prompt=None, messages=[{"role": "developer", "content": "x"}]),
    ),
    "a message without content": Mistake(
        f"config.yaml is not valid:\n  steps.s.messages.0.content: this key is required\n{KEYS}",
        config=step(prompt=None, messages=[{"role": "user"}]),
    ),
    "temperature too high": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s.temperature: must be less than or equal to 2 (it is 3)\n"
        f"{KEYS}",
        config=step(temperature=3),
    ),
    "temperature in words": Mistake(
        f"config.yaml is not valid:\n  steps.s.temperature: must be a valid number (it is 'hot')\n{KEYS}",
        config=step(temperature="hot"),
    ),
    "temperature among params": Mistake(
        f"config.yaml is not valid:\n  steps.s.params: `params.temperature` must be less than or equal to 2 (it is 5)\n{KEYS}",
        config=step(params={"temperature": 5}),
    ),
    "temperature and top_p": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s: `temperature` and `top_p` exclude each other (the API takes one); remove one\n"
        f"{KEYS}",
        config=step(temperature=0, top_p=0.5),
    ),
    "max_tokens of 0": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s.max_tokens: must be greater than or equal to 1 (it is 0)\n"
        f"{KEYS}",
        config=step(max_tokens=0),
    ),
    "max_tokens in words": Mistake(
        "steps.s.max_tokens: 'lots' is neither a whole number nor a template",
        config=step(max_tokens="lots"),
    ),
    "both token limits": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s: `max_tokens` and `max_completion_tokens` exclude each other; remove one\n"
        f"{KEYS}",
        config=step(max_tokens=1, max_completion_tokens=2),
    ),
    "several answers": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s: `params.n` must be 1: a row has one answer; add a step for a second one\n"
        f"{KEYS}",
        config=step(params={"n": 2}),
    ),
    "the model among params": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s: `params.model` is set by the step's own `model` key; remove it from params\n"
        f"{KEYS}",
        config=step(params={"model": "fast-1"}),
    ),
    "one fallback as a text": Mistake(
        f"config.yaml is not valid:\n  steps.s.fallback_models: must be a list (it is 'fast-1')\n{KEYS}",
        config=step(fallback_models="fast-1"),
    ),
    "unknown on_null": Mistake(
        "config.yaml is not valid:\n"
        "  steps.s.on_null: must be 'error', 'skip' or 'render' (it is 'ignore')\n"
        f"{KEYS}",
        config=step(on_null="ignore"),
    ),
    "a share of 150%": Mistake(
        "config.yaml is not valid:\n"
        "  tolerate: give a count of rows, or a share such as 1% (it is '150%')\n"
        f"{KEYS}",
        config=top(tolerate="150%"),
    ),
    "a share as a fraction": Mistake(
        "config.yaml is not valid:\n"
        "  tolerate: give a count of rows, or a share such as 1% (it is 0.01)\n"
        f"{KEYS}",
        config=top(tolerate=0.01),
    ),
    "no concurrency": Mistake(
        "config.yaml is not valid:\n"
        "  limits.concurrency: must be greater than or equal to 1 (it is 0)\n"
        f"{KEYS}",
        config=top(limits={"concurrency": 0}),
    ),
    "a window without a limit": Mistake(
        f"config.yaml is not valid:\n  limits.windows.0: a window needs `requests` or `tokens`\n{KEYS}",
        config=top(limits={"windows": [{"seconds": 60}]}),
    ),
    "a budget of 0": Mistake(
        f"config.yaml is not valid:\n  budget.credits: must be greater than 0 (it is 0)\n{KEYS}",
        config=top(budget={"credits": 0}),
    ),
    "a time-out in words": Mistake(
        f"config.yaml is not valid:\n  endpoint.timeout: must be a valid number\n{KEYS}",
        config=top(endpoint={"timeout": "2 minutes"}),
    ),
    # the command line
    "an unknown command": Mistake(
        "No such command 'rnu'. Did you mean 'run'?",
        args=("rnu", "config.yaml"),
    ),
    "an unknown flag": Mistake(
        "No such option '--sandbx'. Did you mean '--sandbox'?",
        args=("run", "config.yaml", "--sandbx"),
    ),
    "no configuration named": Mistake(
        "Missing argument 'CONFIG'.",
        args=("run",),
    ),
    "a limit below 0": Mistake(
        "Invalid value for '--limit': -1 is not in the range x>=0.",
        args=("run", "config.yaml", "--limit", "-1"),
    ),
    "set without a value": Mistake(
        "--set limits.concurrency: not of the form key.path=value\n"
        "Hint: for example --set limits.concurrency=8",
        args=(*SET, "limits.concurrency"),
    ),
    "set of an unknown key": Mistake(
        f"config.yaml is not valid:\n  limits.concurency: unknown key; did you mean `concurrency`?\n{KEYS}",
        args=(*SET, "limits.concurency=8"),
    ),
    "set of an unknown step": Mistake(
        "--set steps.x.model=fast-1: no item `x`\nHint: there is `s`.",
        args=(*SET, "steps.x.model=fast-1"),
    ),
    "set below a value": Mistake(
        "--set output.path.x=8: `path` is a plain value, it has no parts",
        args=(*SET, "output.path.x=8"),
    ),
    "unknown status": Mistake(
        "--status eror: no such status\nHint: one of error, filtered, invalid_output, truncated, unsupported.",
        args=("retry", "config.yaml", "--status", "eror"),
    ),
    "status without a ledger": Mistake(
        "there is no ledger at DIR/out/.beatra/ledger.db yet\nHint: beatra-enrich run CONFIG makes it.",
        args=("status", "config.yaml"),
    ),
    "unknown fault": Mistake(
        "there is no fault `boom`\n"
        "Hint: there is `rate_limited`, `rate_limited_retry_after`, `retry_after_date`, `retry_after_garbage`, `unauthorized`, `forbidden`, `tenant_disabled`, `region_mismatch`, `insufficient_balance`, `invalid_request`, `unsupported_model`, `unsupported_capability`, `unsupported_option`, `in_flight_409`, `billing_failed`, `model_unavailable`, `internal_error`, `internal_error_final`, `retryable_400`, `error_in_200`, ….",
        args=("sandbox", "--fault", "boom=1"),
    ),
    # templates
    "a misspelt column": Mistake(
        "steps.s.prompt: no column `reveiw`\nHint: did you mean `review`?",
        config=step(prompt="{{ reveiw }}"),
    ),
    "another case": Mistake(
        "steps.s.prompt: no column `Review`\nHint: did you mean `review`?",
        config=step(prompt="{{ Review }}"),
    ),
    "a misspelt column by row": Mistake(
        "steps.s.prompt: no column `Reviev`\nHint: did you mean `review`?",
        config=step(prompt='{{ row["Reviev"] }}'),
    ),
    "no such column at all": Mistake(
        "steps.s.prompt: no column `text`\nHint: there is `id`, `review`, `stars`.",
        config=step(prompt="{{ text }}"),
    ),
    "a misspelt column in when": Mistake(
        "steps.s.when: no column `starz`\nHint: did you mean `stars`?",
        config=step(when="{{ starz < 3 }}"),
    ),
    "a misspelt column in a file": Mistake(
        "steps.s (p.txt): no column `reveiw`\nHint: did you mean `review`?",
        config=step(prompt=None, prompt_file="p.txt"),
        files={"p.txt": "{{ reveiw }}"},
    ),
    "a template that does not end": Mistake(
        "steps.s.prompt: line 1: unexpected end of template, expected 'end of print statement'.\n"
        "Hint: a value is written {{ column }}, a condition {% if … %} … {% endif %}, a literal {{ as {{ '{{' }}.",
        config=step(prompt="{{ review "),
    ),
    "a condition that does not end": Mistake(
        "steps.s.prompt: line 1: Unexpected end of template. Jinja was looking for the following tags: 'elif' or 'else' or 'endif'. The innermost block that needs to be closed is 'if'.\n"
        "Hint: a value is written {{ column }}, a condition {% if … %} … {% endif %}, a literal {{ as {{ '{{' }}.",
        config=step(prompt="{% if review %}x"),
    ),
    "a schema that is no place": Mistake(
        "steps.s.schema: the schema `:` is neither a .json or .yaml file nor an import path\n"
        "Hint: write schema: answer.json, or schema: package.module:Model.",
        config=step(prompt="{{ review }}", schema="://"),
    ),
    "an unknown filter": Mistake(
        "steps.s.prompt: line 1: No filter named 'uper'.\nHint: did you mean `upper`?",
        config=step(prompt="{{ review | uper }}"),
    ),
    "an include": Mistake(
        "steps.s.prompt: a template cannot load another one (include)\n"
        "Hint: put the whole prompt into one file and name it with `prompt_file`.",
        config=step(prompt='{% include "x" %}'),
    ),
    "a step that comes later": Mistake(
        "steps.a.prompt: no column `b`\nHint: there is `id`, `review`, `stars`.",
        config=top(steps=[{"name": "a", "prompt": "{{ b }}"}, {"name": "b", "prompt": "{{ review }}"}]),
    ),
    "no prompt file": Mistake(
        "steps.s.prompt_file: DIR/p.txt cannot be read: no such file or directory",
        config=step(prompt=None, prompt_file="p.txt"),
    ),
    "a wrong messages file": Mistake(
        "steps.s.messages_file: DIR/m.yaml is not valid:\n"
        "  0.role: must be 'system', 'user' or 'assistant' (it is 'dev')",
        config=step(prompt=None, messages_file="m.yaml"),
        files={"m.yaml": "- {role: dev, content: x}"},
    ),
    "a key of an examples file": Mistake(
        "steps.s.examples_file: DIR/e.yaml is not valid:\n"
        "  0.user: this key is required\n"
        "  0.usr: unknown key; did you mean `user`?",
        config=step(examples_file="e.yaml"),
        files={"e.yaml": b"- {usr: Good, assistant: pos}\n"},
    ),
    # schemas
    "an unknown type": Mistake(
        "steps.s.schema: the schema is not valid at `#/type`: \"objekt\" is not valid under any of the schemas listed in the 'anyOf' keyword\n"
        "Hint: see https://json-schema.org/understanding-json-schema/reference.",
        config=step(schema={"type": "objekt"}),
    ),
    "a list as the answer": Mistake(
        "steps.s.schema: the answer's schema is not that of an object with properties, so there are no columns to make\n"
        "Hint: write {type: object, properties: {answer: …}, required: [answer]}.",
        config=step(schema={"type": "array"}),
    ),
    "no schema file": Mistake(
        "steps.s.schema: the schema file DIR/answer.json cannot be read: no such file or directory",
        config=step(schema="answer.json"),
    ),
    "a broken schema file": Mistake(
        "steps.s.schema: DIR/a.json: line 1, column 18: trailing comma is not allowed",
        config=step(schema="a.json"),
        files={"a.json": '{"type": "object",}'},
    ),
    "a schema that points nowhere": Mistake(
        "steps.s.schema: the schema is not valid at `#`: Pointer '/x' does not exist\n"
        "Hint: see https://json-schema.org/understanding-json-schema/reference.",
        config=step(schema={"type": "object", "properties": {"a": {"$ref": "#/x"}}}),
    ),
    "a module that is not there": Mistake(
        "steps.s.schema: the schema `nomodule:Model` cannot be imported: No module named 'nomodule'\n"
        "Hint: the module must be installed, or lie in the working directory.",
        config=step(schema="nomodule:Model"),
    ),
    # input
    "no input file": Mistake(
        "there is no file DIR/inn.csv\nHint: did you mean `in.csv`?",
        config=top(input="inn.csv"),
    ),
    "a glob without a match": Mistake(
        "no data file at DIR/data/*.csv\nHint: quote the glob, and look at what is there with ls.",
        config=top(input="data/*.csv"),
    ),
    "a variable that is not set": Mistake(
        "`input` uses ${NOWHERE}, which is not in the environment\nHint: export NOWHERE=…",
        config=top(input="${NOWHERE}/in.csv"),
    ),
    "an empty file as input": Mistake(
        "DIR/in.csv is empty (0 bytes)\nHint: give it a header, or leave it out.",
        csv="",
    ),
    "a ragged row": Mistake(
        "DIR/in.csv: 1 row has another number of fields than the 2 expected:\n"
        "  line 3: 3 fields\n"
        "Hint: correct them, or set `input.csv.bad_rows: reject` and `input.csv.reject_file` to leave them out.",
        csv="id,review\n1,a\n2,b,c\n",
    ),
    "an open quote": Mistake(
        'DIR/in.csv line 2: a quote (") is opened in this row and never closed\n'
        "Hint: close it, or set `input.csv.quote` to what the file uses ('' for none).",
        csv='id,review\n1,"a\n2,b\n',
    ),
    "another encoding": Mistake(
        "DIR/in.csv line 2, byte 15: b'\\xe9' is not utf-8\n"
        "Hint: set `input.csv.encoding` to what the file is written in, for example cp1252 or latin-1.",
        csv="id,review\n1,café\n".encode("latin-1"),
    ),
    "UTF-16": Mistake(
        "DIR/in.csv line 1, byte 0: b'\\xff' is not utf-8\n"
        "Hint: set `input.csv.encoding` to what the file is written in, by its first bytes utf-16.",
        csv="id,review\n1,café\n".encode("utf-16"),
    ),
    "an unknown encoding": Mistake(
        "config.yaml is not valid:\n"
        "  input.csv.encoding: unknown encoding: 'utf8x'; write for example utf-8, latin-1 or cp1252\n"
        f"{KEYS}",
        config=csv_options(encoding="utf8x"),
    ),
    "a column twice": Mistake(
        "DIR/in.csv has two columns `review`\nHint: rename one of them in its header.",
        csv="id,review,review\n1,a,b\n",
    ),
    "semicolons": Mistake(
        "steps.s.prompt: no column `review`\n"
        "Hint: the input has one column, 'id;review;stars'; set input.csv.delimiter to \";\".",
        csv="id;review;stars\n1;a;2\n",
    ),
    "a delimiter of two characters": Mistake(
        "config.yaml is not valid:\n"
        "  input.csv.delimiter: must have at most 1 character (it is ';;')\n"
        f"{KEYS}",
        config=csv_options(delimiter=";;"),
    ),
    "an unknown type of a column": Mistake(
        "`input.csv.types.stars` is 'integr', which is no type that text can become\n"
        "Hint: there is `string`, `int64`, `float64`, `bool`, `date`, `timestamp`.",
        config=csv_options(types={"stars": "integr"}),
    ),
    "a type for no column": Mistake(
        "`input.csv.types` names `star`, no such column\nHint: did you mean `stars`?",
        config=csv_options(types={"star": "int64"}),
    ),
    "nowhere to put bad rows": Mistake(
        "`input.csv.bad_rows` is reject, but there is no place for the rejected rows\n"
        "Hint: set `input.csv.reject_file`, for example rejected.csv",
        config=csv_options(bad_rows="reject"),
    ),
    "an unknown column to read": Mistake(
        "the input has no column `revew`\nHint: did you mean `review`?",
        config=top(input={"path": "in.csv", "columns": ["revew"]}),
    ),
    "a spreadsheet": Mistake(
        "DIR/in.xlsx cannot be read as a workbook: Cannot detect file format\n"
        "Hint: is it whole, and of the format it claims?",
        config=top(input="in.xlsx"),
        files={"in.xlsx": b"PK"},
    ),
    "no Parquet inside": Mistake(
        "DIR/in.parquet cannot be read: Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.\n"
        "Hint: is it whole, and of the format it claims?",
        config=top(input="in.parquet"),
        files={"in.parquet": b"PAR1 nonsense"},
    ),
    "a column twice in Parquet": Mistake(
        "DIR/in.parquet has two columns `review`\nHint: rename one of them.",
        config=top(input="in.parquet"),
        files={"in.parquet": parquet(TWO_OF_A_NAME)},
    ),
    "a binary column in a prompt": Mistake(
        "steps.s: column `review` is binary, which no prompt can hold\nHint: decode it first.",
        config=top(input="in.parquet"),
        files={"in.parquet": parquet(pa.table({"review": [b"a"]}))},
    ),
    "a broken line of JSON": Mistake(
        "DIR/in.jsonl line 2: Invalid value.\n"
        "Hint: each line must be one JSON object, and a key must hold one type throughout.",
        config=top(input="in.jsonl"),
        files={"in.jsonl": '{"review": "a"}\n{"review":\n'},
    ),
    "two types in one key": Mistake(
        "DIR/in.jsonl line 2: Field review has incompatible types: string vs int64\n"
        "Hint: each line must be one JSON object, and a key must hold one type throughout.",
        config=top(input="in.jsonl"),
        files={"in.jsonl": '{"review": "a"}\n{"review": 5}\n'},
    ),
    "mixed formats": Mistake(
        "the input mixes formats: DIR/d/a.csv is csv, DIR/d/b.jsonl is jsonl\n"
        "Hint: take one format with a glob, for example input: data/*.csv",
        config=top(input="d"),
        files={"d/a.csv": CSV, "d/b.jsonl": "{}"},
    ),
    "files with other columns": Mistake(
        "DIR/d/a.csv has a column `review`, DIR/d/b.csv has not\nHint: give all files the same columns.",
        config=top(input="d"),
        files={"d/a.csv": CSV, "d/b.csv": "id,revue\n1,a\n"},
    ),
    # output and ledger
    "an unknown output format": Mistake(
        "the output DIR/out.xls has no suffix that tells its format\n"
        "Hint: use one of .parquet, .pq, .arrow, .feather, .ipc, .csv, .tsv, .jsonl, .ndjson, .xlsx, or set output.format.",
        config=top(output="out.xls"),
    ),
    "a folder as output": Mistake(
        "the output DIR is a folder\nHint: name a file in it, such as out.parquet, or end it with / for one file per "
        "partition of the input.",
        config=top(output="."),
    ),
    "the input as output": Mistake(
        "the output DIR/in.csv is a file of the input\nHint: give the output a path of its own.",
        config=top(output="in.csv"),
    ),
    "the output where no file can be made": Mistake(
        "the output /proc/out.csv cannot be written: no such file or directory\nHint: choose another output.",
        args=("run", "config.yaml", "--output", "/proc/out.csv"),
    ),
    "the output in the input's folder": Mistake(
        "the output DIR/d/out.parquet lies in the input's folder DIR/d: the next run would read it\n"
        "Hint: put the output into another folder.",
        config=top(input="d", output="d/out.parquet"),
        files={"d/a.csv": CSV},
    ),
    "a column of the input's name": Mistake(
        "step `s` makes a column `s_status`, which the input has too\n"
        "Hint: rename the step, or one of the two with the step's `rename`, or leave the input column out with output.columns.",
        csv="id,review,s_status\n1,a,b\n",
    ),
    "a column of another step's name": Mistake(
        "step `a_status` makes a column `a_status`, which step `a` has too\n"
        "Hint: rename the step, or one of the two with the step's `rename`, or leave the input column out with output.columns.",
        config=top(steps=[{"name": "a", "prompt": "x"}, {"name": "a_status", "prompt": "y"}]),
    ),
    "an unknown compression": Mistake(
        "output.compression is `zip`\nHint: choose one of zstd, snappy, gzip, brotli, lz4, none.",
        config=top(output={"path": "out.parquet", "compression": "zip"}),
    ),
    "the ledger in a folder's place": Mistake(
        "the ledger DIR is a directory\nHint: name a file in it.",
        config=top(ledger="."),
    ),
    "a ledger of an unknown kind": Mistake(
        "a ledger cannot lie at a mysql:// URL\n"
        "Hint: give the path of a file, or a URL that begins with postgresql://",
        config=top(ledger="mysql://me:secret@host/db"),
    ),
    "the ledger in another file's place": Mistake(
        "the ledger DIR/in.csv is a file of the input\nHint: give the ledger a path of its own.",
        config=top(ledger="in.csv"),
    ),
    # endpoint and key
    "no key": Mistake(
        "there is no API key; searched in this order:\n"
        "  1. endpoint.api_key_file in the configuration: not set\n"
        "  2. the environment variable BEATRA_API_KEY: not set\n"
        "Hint: export BEATRA_API_KEY=sk-…",
        env=NO_KEY,
    ),
    "an empty key": Mistake(
        "there is no API key; searched in this order:\n"
        "  1. endpoint.api_key_file in the configuration: not set\n"
        "  2. the environment variable BEATRA_API_KEY: empty\n"
        "Hint: export BEATRA_API_KEY=sk-…",
        env={**NO_KEY, "BEATRA_API_KEY": ""},
    ),
    "a key with a blank": Mistake(
        "the API key in the environment variable BEATRA_API_KEY holds blanks, line ends or characters beyond ASCII\n"
        "Hint: copy the key once more; it is one word such as sk-…",
        env={"BEATRA_API_KEY": "sk-one two"},
    ),
    "no key file": Mistake(
        "endpoint.api_key_file cannot be read: No such file or directory\n"
        "Hint: it takes the path of a file that holds the key, relative to the configuration; never the key.",
        config=top(endpoint={"api_key_file": "key.txt"}),
    ),
    "a URL without its scheme": Mistake(
        "config.yaml is not valid:\n"
        "  endpoint.base_url: it is no http(s) URL; write for example https://api.beatra.ai/v1, or sandbox\n"
        f"{KEYS}",
        config=top(endpoint={"base_url": "api.beatra.ai/v1"}),
    ),
    "plain http": Mistake(
        "endpoint.base_url (of api.beatra.ai) is plain http: the API key would travel in the clear\n"
        "Hint: write https://…, or set endpoint.allow_http: true if it may.",
        config=top(endpoint={"base_url": "http://api.beatra.ai/v1"}),
    ),
    "a URL with a key in it": Mistake(
        "endpoint.base_url holds a user name or password\nHint: give the key by BEATRA_API_KEY instead.",
        config=top(endpoint={"base_url": "https://me:sk-1@api.beatra.ai/v1"}),
    ),
    "a broken URL in the environment": Mistake(
        "BEATRA_BASE_URL is no http(s) URL\nHint: write for example https://api.beatra.ai/v1",
        env={"BEATRA_BASE_URL": "api.beatra.ai"},
    ),
    "the key as a header": Mistake(
        "endpoint.headers.Authorization: every request sets this header itself\n"
        "Hint: remove it; the key comes from BEATRA_API_KEY or endpoint.api_key_file.",
        config=top(endpoint={"headers": {"Authorization": "Bearer sk-1"}}),
    ),
}


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """A run tunes the garbage collector of its process; here that is the tests' own."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_gets_one_message(
    mistake: Mistake, endpoint: BookedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, this very message, nothing on stdout, nothing sent, no file made or changed."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path, mistake)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY, **mistake.env}
    result = CliRunner().invoke(main, mistake.args, env=env, prog_name="beatra-enrich")
    said = result.stderr.replace(str(tmp_path), "DIR")
    usage, _, message = said.rpartition("Error: ")
    assert message == mistake.said + "\n"
    assert usage == "" or usage.startswith("Usage: beatra-enrich ")
    assert (result.exit_code, result.stdout) == (2, "")
    assert endpoint.seen == []
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before
    assert KEY not in said


def put(folder: Path, mistake: Mistake) -> None:
    """Write a mistake's files."""
    files = {"config.yaml": mistake.config, "in.csv": mistake.csv, **mistake.files}
    for name, content in files.items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_several_mistakes_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is wrong with a file is one message, a line each, places named as `--set` takes them."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path, Mistake("", top(limits={"concurrency": 0}, retry={"attempts": "x"}, dedup=True)))
    result = CliRunner().invoke(main, ["run", "config.yaml"])
    assert result.stderr == (
        "Error: config.yaml is not valid:\n"
        "  limits.concurrency: must be greater than or equal to 1 (it is 0)\n"
        "  retry.attempts: must be a valid number (it is 'x')\n"
        "  dedup: unknown key; did you mean `dedupe`?\n"
        f"{KEYS}\n"
    )


@pytest.mark.parametrize("command", ["run", "check", "preview", "collect", "retry", "status"])
def test_every_command_tells_a_mistake_alike(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the command, a mistake in the configuration is the same message and code."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path, Mistake("", top(ouput="x")))
    result = CliRunner().invoke(main, [command, "config.yaml"])
    assert result.exit_code == 2
    assert "ouput: unknown key; did you mean `output`?" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "in.csv"}


def test_a_defect_is_told_in_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw ends with 1, a line, and how to see more."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr("enrich.config.load_config", broken)
    result = CliRunner().invoke(main, ["run", "config.yaml"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: unexpected ZeroDivisionError: nobody foresaw this\n"
        "Hint: this is a defect; run again with BEATRA_TRACEBACK=1 and report what it prints.\n"
    )
