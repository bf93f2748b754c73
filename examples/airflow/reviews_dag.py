# ruff: noqa: INP001  # a DAG file, not a package
"""A DAG that asks about each day's reviews. It runs as it is: its configuration names the built-in sandbox.

Copy this folder into your DAGs, then: airflow dags test reviews 2026-01-05
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset

from enrich.integrations.airflow import BeatraEnrichOperator

with DAG("reviews", schedule="@daily", start_date=datetime(2026, 1, 5, tzinfo=UTC), catchup=False) as dag:
    BeatraEnrichOperator(
        task_id="enrich",
        config="reviews.yaml",
        overrides=["budget.credits=5"],
        outlets=[Asset("reviews_enriched")],
        retries=3,
        retry_delay=timedelta(minutes=5),
    )
