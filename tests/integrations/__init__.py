"""Tests that run where an engine is installed: `tests/test_integrations.py` makes the places."""
