"""A command that is killed as an endpoint's books grow, and begun again until it ends by itself."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.helpers.endpoint import KEY, BookedEndpoint, Seen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.helpers.warm import Ended, Running, Warm


def through_deaths(
    warm: Warm, endpoint: BookedEndpoint, deaths: Sequence[int], folder: Path, *args: str | Path
) -> Ended:
    """Run a command line, killed by SIGKILL at each of these numbers of charges; gives how it ended when it was let be."""
    left = [*deaths]
    under_way: list[Running] = []

    def kill(_: Seen) -> None:
        if left and under_way and len(endpoint.charges) >= left[0]:
            left.pop(0)
            under_way.pop().signal(signal.SIGKILL)

    endpoint.script = kill
    env = {"BEATRA_BASE_URL": endpoint.base_url, "BEATRA_API_KEY": KEY}
    for _ in range(len(deaths) + 1):
        running = warm.start(folder, *args, env=env)
        under_way[:] = [running]
        ended = running.wait()
        if ended.code != -signal.SIGKILL:
            break
    assert not left, f"it ended before it could be killed at {left}: {ended}"
    endpoint.script = None
    return ended
