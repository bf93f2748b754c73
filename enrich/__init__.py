"""Run a language model over the rows of a table: every answer paid for once, none lost."""

__version__ = "0.1.0"
