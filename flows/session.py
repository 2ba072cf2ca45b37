"""A run from the command line: everything slow is started first, and comes up while the recipe is walked."""

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from containers.contract import Endpoint
from containers.serve.contract import ServeConfig
from flows.board import Board
from flows.recipe import Recipe, load_recipe
from flows.serving import announce
from infra.embedded import EmbeddedAPI, prefect_environment
from infra.forecast import forecasts, refuse_what_cannot_fit
from infra.local import prefect_url
from infra.planning import Plan, planning
from infra.runners import Runner
from infra.runners.choice import runner_of
from infra.runs import find_run
from infra.service import refuse_taken_port
from infra.settings import Settings


def run_recipe(name: str, overrides: Sequence[str]) -> int:
    """Run the recipe's flow with a board, and say where everything is; return the exit code."""
    settings = Settings()
    console = Console()
    recipe = load_recipe(name, overrides)
    with ExitStack() as stack:
        api = stack.enter_context(prefect_api(settings))
        flow = flow_of(recipe)
        plan = walk(settings, flow, name, overrides)
        refuse_what_cannot_fit(settings, plan.stages, forecasts(plan.stages))
        refuse_taken_port(recipe.serve, settings)
        runner = runner_of(settings, words_of(plan))
        if words_of(plan):
            runner.warm()
        board = Board(console, tuple(stage.title for stage in plan.stages))
        with console.status("Starting Prefect ...") if console.is_terminal else nullcontext():
            if api:
                api.wait()
        endpoint = drive(settings, flow, (name, overrides), board, runner)
    farewell(console, settings, endpoint, recipe.serve)
    return 0


def drive(
    settings: Settings, flow: Any, arguments: tuple[str, Sequence[str]], board: Board, runner: Runner
) -> Endpoint:
    """Call the flow inside Prefect, shown on the board; what Prefect itself says goes to a log."""
    from infra.orchestration import Preparation, prepared

    quiet_prefect(settings.logs / "prefect.log")
    token = prepared.set(Preparation((board,), runner))
    try:
        with board:
            endpoint: Endpoint = flow(*arguments)
        return endpoint
    finally:
        prepared.reset(token)
        runner.close()


def flow_of(recipe: Recipe) -> Any:
    """Return the recipe's flow; Prefect is imported here."""
    return getattr(importlib.import_module(f"flows.{recipe.flow}"), recipe.flow)


def walk(settings: Settings, flow: Any, name: str, overrides: Sequence[str]) -> Plan:
    """Walk a flow with nothing started: its mistakes come to light here, and the board knows what to expect."""
    with planning(settings, name) as plan:
        flow.fn(name, tuple(overrides))
    return plan


def words_of(plan: Plan) -> list[str]:
    """Return the words of the stages that will run, in order."""
    return list(dict.fromkeys(entry.stage.word for entry in plan.stages if not entry.reused))


@contextmanager
def prefect_api(settings: Settings) -> Iterator[EmbeddedAPI | None]:
    """Point Prefect, not yet imported, at a server: one that is named or up, else an embedded one of our own."""
    os.environ.update(prefect_environment(settings))
    named = settings.prefect_api_url or prefect_url(settings)
    if named:
        os.environ["PREFECT_API_URL"] = named
        yield None
        return
    api = EmbeddedAPI(settings)
    os.environ["PREFECT_API_URL"] = api.url
    try:
        yield api
    finally:
        drain_prefect()
        api.stop()


def quiet_prefect(log: Path) -> None:
    """Send what Prefect would print to a file; its logs in the UI are not touched."""
    from prefect.logging.configuration import setup_logging

    setup_logging()
    log.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(log)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s - %(message)s"))
    for name in (None, *logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers = [file if is_console(handler) else handler for handler in logger.handlers]


def is_console(handler: logging.Handler) -> bool:
    """Whether a handler writes to the terminal."""
    stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
    return stream in (sys.stderr, sys.stdout)


def drain_prefect() -> None:
    """Have logs and states that are still on their way delivered before the embedded server stops."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    drains: tuple[Callable[[], Any], ...] = (APILogWorker.drain_all, EventsWorker.drain_all)
    for drain in drains:
        drain()


def farewell(console: Console, settings: Settings, endpoint: Endpoint, config: ServeConfig) -> None:
    """Say where the model answers, how to ask it, and where everything else is."""
    run = find_run(settings)
    announce(endpoint, config, settings)
    console.print(f"  report   {run / 'report.html'}", highlight=False, soft_wrap=True)
    console.print("  Prefect and MLflow   make up", highlight=False)
    console.print("  stop the model       ./slipway stop", highlight=False)
