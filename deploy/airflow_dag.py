"""A DAG that runs the Meltano pipeline every night; the key comes from the worker's environment."""  # noqa: INP001

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="braze_users",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # an export is of today: there is nothing to catch up
    max_active_runs=1,
):
    BashOperator(
        task_id="load",
        bash_command="cd /srv/my-project && exec meltano run tap-braze-export target-duckdb",
        retries=2,  # the next attempt goes on where this one stopped
        retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=12),
        append_env=True,
    )
