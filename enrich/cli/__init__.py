"""The command line: arguments in, an exit code out; results on stdout, progress and logs on stderr."""

from enrich.cli import jobs, ledger, looking, sandbox, setup
from enrich.cli.app import EXIT_CODES, main

__all__ = ["EXIT_CODES", "jobs", "ledger", "looking", "main", "sandbox", "setup"]
