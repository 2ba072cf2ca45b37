"""Tell a Prefect server of Slipway: the work pool, the deployments of prefect.yaml, the watch over dead runs.

    python -m infra.deploy

It may be repeated: what is there is brought up to date. Schedules that a person switched on stay on.
"""

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

from containers.contract import StageError
from infra.embedded import HEARTBEAT_SECONDS, prefect_environment
from infra.local import prefect_url
from infra.settings import ROOT, Settings

POOL = "slipway"
WATCH = "slipway: a run without a sign of life is dead"
MISSED = 3
"""Heartbeats that may be missing before a run counts as dead."""


def point_at_server(settings: Settings) -> str:
    """Set the environment that Prefect reads, once and before it is imported; return the server's API."""
    api = settings.prefect_api_url or prefect_url(settings)
    if not api:
        raise StageError("no Prefect server is up: `make up` starts one, SLIPWAY_PREFECT_API_URL names one elsewhere")
    os.environ.update(prefect_environment(settings) | {"PREFECT_API_URL": api, "SLIPWAY_PREFECT_API_URL": api})
    return api


def deploy() -> None:
    """Register everything; raises StageError with Prefect's words where it refuses."""
    make_pool()
    running = active_schedules()
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError(f"Prefect did not take prefect.yaml: {(done.stdout + done.stderr).strip()[-1500:]}")
    switch_on(running)
    watch_over_runs()


def active_schedules() -> set[tuple[str, str | None]]:
    """Return (deployment, slug) of every schedule that is on: `prefect deploy` sets each back to what the file says."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {(d.name, s.slug) for d in client.read_deployments() for s in d.schedules if s.active}


def switch_on(running: set[tuple[str, str | None]]) -> None:
    """Switch these schedules on again."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            for schedule in deployment.schedules:
                if (deployment.name, schedule.slug) in running and not schedule.active:
                    client.update_deployment_schedule(deployment.id, schedule.id, active=True)


def make_pool() -> None:
    """Make the work pool, unless it is there: flows run as processes of the worker, which makes the containers."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=POOL, type="process", base_job_template=template, description="Where flows are driven.")
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(pool)
        except ObjectAlreadyExists:
            return


def watch_over_runs() -> None:
    """Have the server mark a run Crashed once its heartbeat has stopped: a killed process cannot say so itself."""
    from prefect.automations import Automation

    wished = watch()
    try:
        known: Any = Automation.read(name=WATCH)
    except ValueError:
        wished.create()
        return
    known.trigger, known.actions = wished.trigger, wished.actions
    known.update()


def watch() -> Any:
    """Return the automation; only its server's clock decides, so that no worker needs to live."""
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    silence = MISSED * HEARTBEAT_SECONDS
    return Automation(
        name=WATCH,
        description=f"No heartbeat for {silence} s: the process, its container or its machine is gone.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence),
        ),
        actions=[
            ChangeFlowRunState(state=StateType.CRASHED, message=f"No sign of life for {silence} s: its process died.")
        ],
    )


def main() -> int:
    """Register; return the exit code."""
    try:
        api = point_at_server(Settings())
        deploy()
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"deployments are registered at {api.removesuffix('/api')}/deployments")
    return 0


if __name__ == "__main__":
    sys.exit(main())
