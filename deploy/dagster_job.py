"""A Dagster job that runs the Meltano pipeline every night; the key comes from the environment."""  # noqa: INP001

from __future__ import annotations

import subprocess

import dagster as dg


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2, delay=600))
def load_braze_users() -> None:
    """Run the pipeline; the next attempt goes on where this one stopped."""
    subprocess.run(["meltano", "run", "tap-braze-export", "target-duckdb"], cwd="/srv/my-project", check=True)  # noqa: S607


@dg.job
def braze_users() -> None:
    """Load every profile."""
    load_braze_users()


defs = dg.Definitions(
    jobs=[braze_users],
    schedules=[dg.ScheduleDefinition(job=braze_users, cron_schedule="0 2 * * *", execution_timezone="UTC")],
)
