"""The program: the command line as a process of its own, which leaves without taking the interpreter apart."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn

from enrich.cli.app import main


def program() -> NoReturn:
    """Carry out the command line, and leave with its exit code.

    A thread of Arrow's may still be at work, for a reader that was left. One that wants the interpreter's lock while the
    interpreter is being taken apart is ended by it, which C++ answers with an abort: a core shows that, and about 1 of 40
    runs of `preview` on a small CSV ended so, with 134 (tests/cli/test_program.py repeats them). So, when everything is
    closed and written, the process simply ends.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  # as the interpreter: pools are told to end, threads awaited
    atexit._run_exitfuncs()  # noqa: SLF001  # what libraries tidy away at the end, as the interpreter would have them
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
