"""The garbage collector, set for a process that does nothing but one command."""

import gc

THRESHOLD = 50_000  # allocations between young collections; the default 700 costs a tenth of a request, a sixth of an import


def collect_seldom() -> None:
    """Look for garbage seldom, from now on."""
    gc.set_threshold(THRESHOLD, 20, 100)


def keep_imports() -> None:
    """Look no more at what is there by now: what was imported stays."""
    gc.freeze()
