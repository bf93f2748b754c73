"""The version of beatra-enrich, in one place."""

__version__ = "0.1.0"
