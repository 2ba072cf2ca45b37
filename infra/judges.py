"""Judges, seen from the host: where their recorded answers lie, and what a stage that asks one live is granted.

What a live judge answers is nobody's to repeat, so its stage gets a nonce and is never reused. A run that was killed is
gone on with all the same: the nonce of an unfinished run of the same work is taken again.
"""

import dataclasses
import secrets
from typing import Any, TypeVar

from containers.contract import Config, Files, Frozen, Request, Stage
from containers.judges.config import EndpointJudgeConfig, JudgeConfig
from infra.digests import Digests
from infra.launch import current_launch
from infra.planning import current_plan
from infra.sources import files_at, home
from infra.staging import linked

C = TypeVar("C", bound=Config)
I = TypeVar("I", bound=Frozen)  # noqa: E741 - as in containers.contract
O = TypeVar("O", bound=Frozen)  # noqa: E741


def recording_of(judge: JudgeConfig | None, place: str) -> Files | None:
    """Return the recorded answers that a judge names, if any; raises StageError naming their `place` in the recipe."""
    if not isinstance(judge, EndpointJudgeConfig) or judge.recorded is None:
        return None
    with Digests(home() / "sources" / "digests.sqlite") as digests:
        return files_at(judge.recorded, place, digests)


def asking(stage: Stage[C, I, O], config: C, inputs: I) -> tuple[Stage[C, I, O], C]:
    """Return the stage and its config (with a field `judge`) as they are run: online and never reused if asked live."""
    judge: JudgeConfig | None = config.judge  # type: ignore[attr-defined]
    if not isinstance(judge, EndpointJudgeConfig) or not judge.live:
        return stage, config
    marked = config.revise(judge=judge.revise(nonce=nonce_for(stage, config, inputs)))
    return dataclasses.replace(stage, fetches=True), marked


def nonce_for(stage: Stage[Any, Any, Any], config: Config, inputs: Frozen) -> str:
    """Return the nonce of an unfinished run of the same work, else a new one."""
    if current_plan() is None:
        staging = current_launch().settings.home / "staging"
        for file in sorted(staging.glob(f"{stage.word}-*/request.json")):
            request = Request.model_validate_json(file.read_text(encoding="utf-8"))
            nonce = str(request.config["judge"].get("nonce", ""))
            same = {**request.config, "judge": {**request.config["judge"], "nonce": ""}}
            if nonce and same == config.model_dump(mode="json") and request.inputs == linked(inputs):
                return nonce
    return secrets.token_hex(8)
