"""A thousand inputs that people and machines get wrong, by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bad_input import (
    bad_commands,
    bad_csv,
    bad_paths,
    bad_schemas,
    bad_tables,
    bad_templates,
    bad_values,
    bad_yaml,
)

if TYPE_CHECKING:
    from tests.bad_input.case import Case

KINDS = (
    bad_values.numbers,
    bad_values.params,
    bad_values.enums,
    bad_values.flags,
    bad_values.kinds,
    bad_paths.paths,
    bad_paths.jobs,
    bad_paths.messages_files,
    bad_templates.templates,
    bad_schemas.schemas,
    bad_csv.csv_options,
    bad_csv.csv_files,
    bad_tables.jsonl_files,
    bad_tables.damaged_files,
    bad_yaml.yaml_files,
    bad_commands.urls,
    bad_commands.flags_of_commands,
)


def battery() -> dict[str, Case]:
    """Give every case by its name."""
    found: dict[str, Case] = {}
    for kind in KINDS:
        for name, case in kind():
            full = f"{kind.__name__}: {name}"
            found[full if full not in found else f"{full} #{len(found)}"] = case
    return found
