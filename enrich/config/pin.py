"""The key `pin` of a step: what to do when another model answers than the one that answered first."""

from __future__ import annotations

from typing import Literal

from enrich.config.section import Section

OnChange = Literal["stop", "mark", "ask"]


class Pin(Section):
    """The served model of a step, held to the one of its first answer; of each model that is asked one.

    Attributes:
        on_change: `stop` ends the run (exit code 4) and keeps what is paid for; `mark` goes on, and says in the column
            `s_model_changed` which rows are concerned; `ask` asks on a terminal whether to take the new model, and stops
            where there is none.
        fingerprint: whether another `system_fingerprint` of the same model counts as a change too.
    """

    on_change: OnChange = "stop"
    fingerprint: bool = True
