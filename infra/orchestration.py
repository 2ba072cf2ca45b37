"""What Prefect knows of a stage: a task per stage, a run around them, and the one way to run stages side by side.

Import it (and with it Prefect) only after `infra.embedded.prefect_environment` is set: the entry points see to that.
"""

import inspect
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Completed

from containers.contract import Config
from infra.doctor import gpu_memory
from infra.flow_log import FlowLog, reused_stages
from infra.git import commit_of
from infra.host_tasks import on_the_host
from infra.launch import Launch, Listener, current_launch, launching
from infra.planning import current_plan
from infra.reconcile import bury_the_dead
from infra.relay import start_relay
from infra.runners import Runner
from infra.runners.choice import runner_of
from infra.runs import Recorder, Run, RunRecord, RunView, driving, new_run_name, status_of
from infra.sampling import sampling
from infra.settings import ROOT, Settings
from infra.store import Store

P = ParamSpec("P")
T = TypeVar("T")
LABELS = ("role", "name")
"""The parameters that tell runs of one stage apart: the role of a dataset, the name of a model."""


@dataclass(frozen=True)
class Preparation:
    """What a caller of a flow made ready for it: who else watches, and a runner that already warms up."""

    watchers: tuple[Listener, ...] = ()
    runner: Runner | None = None


prepared: ContextVar[Preparation | None] = ContextVar("prepared", default=None)


def stage_task(function: Callable[P, T]) -> Callable[P, T]:
    """Make `function` a Prefect task: named runs, JSON results, retries for faults of the machinery alone.

    A task whose stages were all reused ends as `Cached`. A function that runs no stage (serve, report) is a host task:
    listeners see it all the same. Outside of a flow the result is a plain call.
    """
    work = function if "run_stage" in function.__code__.co_names else on_the_host(function)
    label = next((name for name in LABELS if name in inspect.signature(function).parameters), None)
    task: Task[..., Any] = Task(
        fn=reporting_reuse(work),
        name=function.__name__,
        task_run_name=f"{function.__name__}-{{{label}}}" if label else function.__name__,
        retries=2,
        retry_delay_seconds=[2, 20],
        retry_condition_fn=is_fault_of_machinery,
        cache_policy=NO_CACHE,
        persist_result=True,
        result_serializer="json",
    )

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if FlowRunContext.get() is None:
            return work(*args, **kwargs)
        state = cast(State[Any], task(*args, return_state=True, **kwargs))
        result: T = state.result()
        return result

    return call


def reporting_reuse(work: Callable[P, T]) -> Callable[P, T | State[T]]:
    """Wrap a task's body: where every stage that it ran was reused, it ends in a state that says so."""

    @wraps(work)
    def body(*args: P.args, **kwargs: P.kwargs) -> T | State[T]:
        reused: list[bool] = []
        token = reused_stages.set(reused)
        try:
            value = work(*args, **kwargs)
        finally:
            reused_stages.reset(token)
        if reused and all(reused):
            return Completed(name="Cached", message="Nothing changed: the stored result was reused.", data=value)
        return value

    return body


def is_fault_of_machinery(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again can help: a full disk or a mistake in the stage stays what it is."""
    return isinstance(state.data, ConnectionError | TimeoutError | BlockingIOError | ChildProcessError)


def short_name() -> str:
    """Return what a flow run is called: its recipe's name, for a recipe given by path the name of its file."""
    return Path(str(flow_run.parameters["recipe_name"])).name.removesuffix(".yaml")


@contextmanager
def run_of(recipe: Config, name: str = "") -> Iterator[None]:
    """Open a run: its folder and record, its listeners, its relay to MLflow; close all of it, however it ends.

    The name defaults to that of the flow run, which is the recipe's. While `slipway plan` walks a flow, nothing is
    opened and nothing starts.
    """
    plan = current_plan()
    if plan:
        view = RunView(plan.launch.settings, first_record(plan.launch.settings, recipe, plan.name))
        with driving(view), launching(plan.launch):
            yield
        return
    settings = Settings()
    bury_the_dead(settings)
    run = Run(settings, first_record(settings, recipe, name))
    start_relay(settings, run.folder)
    ready = prepared.get() or Preparation()
    listeners: tuple[Listener, ...] = (Recorder(run), FlowLog(), *ready.watchers)
    launch = Launch(settings, Store(settings.store), ready.runner or runner_of(settings), listeners)
    try:
        with sampling(run), driving(run), launching(launch):
            yield
    except BaseException as error:
        run.close(status_of(error), str(error))
        raise
    run.close("done")


def first_record(settings: Settings, recipe: Config, name: str) -> RunRecord:
    """Return the record of a run that begins now."""
    context = FlowRunContext.get()
    asked = context.flow_run if context else None
    named = name or (asked.name if asked else "run")
    return RunRecord(
        run=new_run_name(settings.runs, named),
        recipe=named,
        began=time.time(),
        git=commit_of(ROOT),
        flow_run_id=str(asked.id) if asked else "",
        config=recipe.model_dump(mode="json"),
        arguments=dict(context.parameters or {}) if context else {},
    )


def side_by_side(*calls: Callable[[], T]) -> list[T]:
    """Run independent stages at the same time, as many as the machine bears; return their results in order.

    One at a time on fewer than eight cores, where two PyTorch processes cost each other five times their speed, and
    beside a GPU, whose memory one stage may need whole. When one fails, those that have not begun do not begin, those
    that run are stopped, and its error is raised.
    """
    width = min(len(calls), Settings().stages_at_once or (1 if gpu_memory() else max(1, (os.cpu_count() or 1) // 4)))
    if width <= 1:
        return [call() for call in calls]
    with ThreadPoolExecutor(width, thread_name_prefix="stage") as pool:
        waiting = [pool.submit(copy_context().run, call) for call in calls]
        try:
            return [done.result() for done in in_any_order(waiting)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            current_launch().cancelled.set()
            raise


def in_any_order(waiting: list[Future[T]]) -> list[Future[T]]:
    """Wait for all of them, raising the first error as soon as there is one; return them in their own order."""
    for done in as_completed(waiting):
        done.result()
    return waiting
