"""Tasks that run on the host itself, in no stage folder: serve and report. Listeners see them like any stage."""

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints

from containers.contract import Frozen, Request, Result
from infra.launch import StageRun, current_launch
from infra.planning import current_plan

P = ParamSpec("P")
T = TypeVar("T")


def on_the_host(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a task that runs no stage, so that the launch's listeners are told when it begins and ends."""
    word = function.__name__

    @wraps(function)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        if current_plan():
            return cast(T, blank(get_type_hints(function)["return"]))
        launch = current_launch()
        run = StageRun(word, "", "", "", Path(), Path())
        request = Request(stage=word, label="", fingerprint="", code="", config=config_of(args, kwargs), inputs={})
        began = time.monotonic()
        for listener in launch.listeners:
            listener.stage_started(run, request, False)
        try:
            value = function(*args, **kwargs)
        except BaseException as error:
            for listener in launch.listeners:
                listener.stage_ended(run, error)
            raise
        outputs = {"value": value.model_dump(mode="json")} if isinstance(value, Frozen) else {}
        seconds = round(time.monotonic() - began, 3)
        result = Result(stage=word, fingerprint="", outputs=outputs, metrics={}, seconds=seconds, environment={})
        for listener in launch.listeners:
            listener.stage_ended(run, result)
        return value

    return told


def blank(annotation: Any) -> Any:
    """Return what stands for a host task's result while a flow is only walked."""
    return annotation.model_construct() if isinstance(annotation, type) and issubclass(annotation, Frozen) else None


def config_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the config among a task's arguments as JSON values."""
    configs = [value for value in (*args, *kwargs.values()) if type(value).__name__.endswith("Config")]
    found: dict[str, Any] = configs[0].model_dump(mode="json") if configs else {}
    return found
