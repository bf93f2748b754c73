"""What engines say of themselves, as their own metrics pages write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.wire.gauges import GAUGES, Load, read_load

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m {a} 1"} 12.0
vllm:num_requests_running{engine="1",model_name="m {a} 1"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m {a} 1"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m {a} 1"} 7.0
vllm:num_requests_waiting_total{engine="1"} 99
"""
SGLANG = (
    'sglang:num_running_reqs{model_name="x"} 4\nsglang:num_queue_reqs{model_name="x"} 1.5e+1 1700000000000\n'
)
LLAMA = "llamacpp:requests_processing 2\r\nllamacpp:requests_deferred 5\r\n"
TGI = "tgi_batch_current_size 8\ntgi_queue_size 0\n"


@pytest.mark.parametrize(
    ("text", "load"),
    [(VLLM, (15, 7)), (SGLANG, (4, 15)), (LLAMA, (2, 5)), (TGI, (8, 0))],
    ids=["vLLM", "SGLang", "llama.cpp", "TGI"],
)
def test_an_engines_gauges_are_read(text: str, load: tuple[int, int]) -> None:
    """Labels, several series and time stamps are no matter: what is worked on, and what waits."""
    assert read_load(text) == Load(*load)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>no such page</html>",
        "up 1\n",
        "vllm:num_requests_running 3\n",
        "tgi_batch_current_size NaN\ntgi_queue_size 0\n",
    ],
    ids=["nothing", "a page", "another's", "half", "not a number"],
)
def test_what_is_no_engines_is_nothing(text: str) -> None:
    """A page without both figures of one engine tells nothing."""
    assert read_load(text) is None


@given(
    pair=st.sampled_from(GAUGES),
    working=st.integers(0, 10**9),
    waiting=st.integers(0, 10**9),
    around=st.text(),
)
def test_any_figures_come_back(pair: tuple[str, str], working: int, waiting: int, around: str) -> None:
    """Whatever else stands in comments, the figures are those that were written."""
    comment = "# " + " ".join(around.splitlines()) + "\n"
    assert read_load(f'{comment}{pair[0]} {working}\n{comment}{pair[1]}{{a="b"}} {waiting}\n') == (
        working,
        waiting,
    )
