"""What an engine's own metrics tell: how many requests it works on, and how many wait."""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

# (worked on, waiting) as the engines name them: docs.vllm.ai/en/stable/usage/metrics, docs.sglang.ai/references/production_metrics,
# llama.cpp's tools/server/README, huggingface.co/docs/text-generation-inference/reference/metrics.
GAUGES: Final = (
    ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
    ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
    ("tgi_batch_current_size", "tgi_queue_size"),
)
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{.*\})?[ \t]+(\S+)", re.MULTILINE)  # of Prometheus' text format


class Load(NamedTuple):
    """How busy an engine says that it is, with everybody's requests.

    Attributes:
        working: requests that it works on.
        waiting: requests that wait for that.
    """

    working: int
    waiting: int


def read_load(text: str) -> Load | None:
    """Read an engine's metrics, in Prometheus' text format; None where they are of no engine that is known.

    Several series of a name, one per model or per process, are added up.
    """
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        if name in _NAMES and math.isfinite(number := _number(value)) and number >= 0:
            sums[name] = sums.get(name, 0.0) + number
    for working, waiting in GAUGES:
        if working in sums and waiting in sums:
            return Load(round(sums[working]), round(sums[waiting]))
    return None


_NAMES = frozenset(name for pair in GAUGES for name in pair)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
