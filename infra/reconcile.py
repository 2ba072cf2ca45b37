"""Runs whose driver died without a word: marked killed on record and in Prefect, at the start of the next run.

A self-hosted Prefect server has no notion of a dead flow run: it would stay Running for ever. MLflow's side is the
relay's (`infra.relay`).
"""

import logging
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from containers.out import write_last
from infra.journal import run_folders
from infra.runs import RunRecord, read_record
from infra.settings import Settings

log = logging.getLogger("slipway")


def bury_the_dead(settings: Settings) -> list[str]:
    """Mark every dead run that is on record as running; return their names. Prefect being away does no harm.

    Their containers are ended first.
    """
    if settings.runner == "docker":
        from infra.runners.docker import DockerRunner

        DockerRunner(settings).warm()
    dead = []
    for folder in run_folders(settings.runs, "run.json"):
        file = folder / "run.json"
        record = read_record(folder)
        if record.status == "killed" and '"killed"' not in file.read_text(encoding="utf-8"):
            tell_prefect(record)
            mark(file, record)
            dead.append(record.run)
    return dead


def mark(file: Path, record: RunRecord) -> None:
    """Write down that a run was killed, and with it the stages that ran."""
    stages = tuple(s.revise(status="stopped") if s.status == "running" else s for s in record.stages)
    write_last(file, record.revise(stages=stages).model_dump_json(indent=1))


def tell_prefect(record: RunRecord) -> None:
    """Set the flow run to Crashed, if this server knows it."""
    if not record.flow_run_id:
        return
    try:
        with get_client(sync_client=True) as client:
            state: State[Any] = Crashed(message="The process that drove this run died.")
            client.set_flow_run_state(UUID(record.flow_run_id), state, force=True)
    except ObjectNotFound:
        pass
    except Exception as error:
        log.warning("%s: not marked in Prefect: %s", record.run, error)
