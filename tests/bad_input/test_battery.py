"""A thousand bad inputs on the real command line: the right exit code, no hang, bounded memory, nothing harmed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.bad_input.battery import battery
from tests.bad_input.case import come
from tests.bad_input.mutated import mutated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.bad_input.case import Case
    from tests.helpers.endpoint import BookedEndpoint
    from tests.helpers.warm import Warm

EVERY = 90  # of the cases, one in so many is run each time


def faults(
    cases: Mapping[str, Case], folder: Path, warm: Warm, endpoint: BookedEndpoint
) -> dict[str, tuple[list[str], str]]:
    """Run cases, each in a folder of its own, and give what is wrong with what came of them."""
    found = {}
    for name, case in cases.items():
        place = folder / "job"
        place.mkdir()
        came = come(case, place, warm, endpoint)
        shutil.rmtree(place)
        if came.faults:
            found[name] = (came.faults, came.ended.err[-300:])
    return found


@pytest.mark.timeout(600)
def test_a_sample_of_bad_inputs_is_refused_or_carried_out(
    tmp_path: Path, warm: Warm, endpoint: BookedEndpoint
) -> None:
    """Exit code 2 with a message and nothing sent, or done; never a traceback, a hang or a harmed file."""
    sample = {name: case for number, (name, case) in enumerate(battery().items()) if number % EVERY == 7}
    assert faults(sample, tmp_path, warm, endpoint) == {}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_bad_input_is_refused_or_carried_out(
    tmp_path: Path, warm: Warm, endpoint: BookedEndpoint
) -> None:
    """The same of all of them."""
    assert faults(battery(), tmp_path, warm, endpoint) == {}


@pytest.mark.timeout(600)
def test_a_sample_of_mutated_jobs_ends_as_a_job_should(
    tmp_path: Path, warm: Warm, endpoint: BookedEndpoint
) -> None:
    """Something in a good job changed at random: refused with nothing sent, or carried out; never a defect."""
    assert faults({str(seed): mutated(seed) for seed in range(12)}, tmp_path, warm, endpoint) == {}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_mutated_jobs_end_as_a_job_should(
    tmp_path: Path, warm: Warm, endpoint: BookedEndpoint
) -> None:
    """The same of many more."""
    assert faults({str(seed): mutated(seed) for seed in range(12, 1012)}, tmp_path, warm, endpoint) == {}
