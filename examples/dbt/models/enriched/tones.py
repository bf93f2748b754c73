# ruff: noqa: INP001  # dbt runs it
"""The tone of each review. A build asks only about reviews that are new or changed: the ledger keeps the answers."""

from typing import Any


def model(dbt: Any, session: Any) -> Any:  # noqa: ARG001  # dbt's own signature
    """Give the reviews with the columns of the step `tone`."""
    import enrich.pandas  # noqa: F401  # gives frames the accessor

    return dbt.ref("stg_reviews").df().beatra.run("beatra/tones.yaml")
