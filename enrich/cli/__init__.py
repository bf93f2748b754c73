"""The command line: arguments go in, an exit code comes out; results on stdout, progress and logs on stderr.

Every error is one message and its exit code; a traceback is shown only to who asks for it.
"""

from enrich.cli import agents, comparing, jobs, ledger, looking, reviewing, sandbox, setup
from enrich.cli.app import EXIT_CODES, main

__all__ = [
    "EXIT_CODES",
    "agents",
    "comparing",
    "jobs",
    "ledger",
    "looking",
    "main",
    "reviewing",
    "sandbox",
    "setup",
]
