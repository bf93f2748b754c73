"""Everything that can go wrong, as one tree.

EnrichError                      exit 1
├── UsageError                   exit 2   nothing was sent
│   ├── ConfigError                       the configuration file, a flag or an environment variable
│   ├── InputError                        the input data
│   ├── TemplateError                     a template, or what it asks of the input
│   ├── TooManyReasked                    rows that were answered before would be paid for again
│   ├── OutputError                       the output path or its columns
│   └── LedgerError                       the ledger cannot be opened or trusted
│       └── LedgerDamaged                 its file is not what was written
├── RunStopped                   exit 4   stopped early, resumable
│   ├── KeyRefused                        401 or 403
│   ├── BalanceSpent                      402
│   ├── BudgetSpent                       the run's own budget
│   ├── EndpointFailing                   the breaker: nearly everything fails, or all rows fail alike
│   ├── ModelChanged                      another model answers than the one that a step is pinned to
│   ├── GuaranteeUnmet                    a sample does not show what is to be promised
│   ├── RowsUnasked                       `retry` met rows that were never asked
│   ├── DiskFull                          no room for the answers
│   └── LedgerFailing                     the ledger, open and in use, cannot be read or written any more
├── RowsFailed                   exit 3   a data frame's rows, where `errors="raise"` was asked for
├── OutputLocked                 exit 5   another run holds this output
└── RunInterrupted               exit 130 a signal, resumable
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


MOST_SAID = 2_000  # characters of a message; what data and paths put into it has no bound of its own
MOST_HINTED = 500  # characters of a hint


def shortened(text: str, most: int) -> str:
    """Give a text as it is, or its beginning and its end when it is longer than so many characters."""
    if len(text) <= most:
        return text
    left_out = f" … ({len(text) - most:,} characters left out) … "
    return f"{text[: most * 3 // 4]}{left_out}{text[-most // 4 :]}"


# A key of the API as it looks (`sk-…`, with a digit in it), where it stands in a place that is told of, such as a name.
_KEY = re.compile(r"(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{10,}")


def without_keys(text: str) -> str:
    """Give a text in which what looks like an API key is hidden: a message quotes what may be a key in the wrong place."""
    return _KEY.sub("[key]", text)


class EnrichError(Exception):
    """Something went wrong inside beatra-enrich.

    Args:
        message: what went wrong, with which value and where. Default: the first line of the class's docstring.
        hint: what to do or type next, as one sentence; shown after ``Hint:``.
        passes: whether it may be over by itself, so that starting the same again helps. Default: as the class says.
    """

    exit_code: ClassVar[int] = 1
    passes: bool = False

    def __init__(self, message: str = "", *, hint: str = "", passes: bool | None = None) -> None:
        self.message = (
            shortened(without_keys(message), MOST_SAID) or (type(self).__doc__ or "").partition("\n")[0]
        )
        self.hint = shortened(without_keys(hint), MOST_HINTED)
        if passes is not None:
            self.passes = passes
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """Give what a notebook shows instead of a traceback: the way through our own code explains no mistake."""
        return f"{type(self).__name__}: {self}".splitlines()


class UsageError(EnrichError):
    """The request cannot be carried out as given; nothing was sent."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration is not valid."""


class InputError(UsageError):
    """The input data cannot be read."""


class TemplateError(UsageError):
    """A template cannot be used with this input."""


class TooManyReasked(UsageError):
    """More rows than `max_reasked` allows were answered before and would be paid for again."""


class OutputError(UsageError):
    """The output cannot be written."""


class LedgerError(UsageError):
    """The ledger cannot be opened or trusted."""

    passes = True  # a database may come back


class LedgerDamaged(LedgerError):
    """The ledger is damaged."""

    passes = False


class RunStopped(EnrichError):
    """The run stopped early; everything paid for is kept."""

    exit_code = 4
    passes = True


class KeyRefused(RunStopped):
    """The endpoint refused the API key."""

    passes = False


class BalanceSpent(RunStopped):
    """The account's balance is spent."""

    passes = False


class BudgetSpent(RunStopped):
    """The run's budget is spent."""

    passes = False


class EndpointFailing(RunStopped):
    """Nearly every request fails."""


class RowsUnasked(RunStopped):
    """Rows that were never asked are left; retry asks only rows that failed."""

    passes = False


class ModelChanged(RunStopped):
    """Another model answers than the one that a step is pinned to.

    Args:
        change: who answered and who answers, as plain JSON; ``asks`` says whether a person is to be asked.
    """

    passes = False

    def __init__(self, message: str = "", *, hint: str = "", change: dict[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.change = change or {}


class GuaranteeUnmet(RunStopped):
    """A sample does not show what is to be promised of all rows."""

    passes = False


class DiskFull(RunStopped):
    """There is no room left to keep answers."""


class LedgerFailing(RunStopped, LedgerError):
    """The ledger cannot be read or written any more."""


class RowsFailed(EnrichError):
    """Rows failed; everything paid for is kept."""

    exit_code = 3


class OutputLocked(EnrichError):
    """Another run holds this output."""

    exit_code = 5
    passes = True


class RunInterrupted(EnrichError):
    """The run was interrupted; everything paid for is kept."""

    exit_code = 130
    passes = True


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which known name is nearest to a misspelt one: ``did you mean `review`?``, else what there is.

    Args:
        name: the name that was not found.
        known: the names that exist; at most twenty are listed.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    shown = ", ".join(f"`{n}`" for n in names[:20]) + (", …" if len(names) > 20 else "")
    return f"there is {shown}." if names else "there is none."
