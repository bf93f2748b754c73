"""The command line: arguments go in, an exit code comes out; results on stdout, progress and logs on stderr.

A defect is the only thing that shows a traceback, and nothing is done here that a program could not do without it.
"""

from enrich.cli import jobs, ledger, looking, sandbox, setup
from enrich.cli.app import EXIT_CODES, main

__all__ = ["EXIT_CODES", "jobs", "ledger", "looking", "main", "sandbox", "setup"]
