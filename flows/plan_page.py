"""What a run would do and cost: `slipway plan` and `slipway why`."""

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from containers.code import Code
from containers.contract import StageError
from flows.board import duration
from flows.recipe import load_recipe
from infra.embedded import prefect_environment
from infra.fingerprint import components
from infra.forecast import Cost, forecasts, refuse_what_cannot_fit
from infra.planning import Foreseen, Plan, differences_from
from infra.runs import find_run, read_record
from infra.settings import Settings

GIB = 2**30


def show_plan(name: str, overrides: Sequence[str]) -> None:
    """Print each stage with what would happen and its forecast; raises StageError when something cannot fit."""
    settings = Settings()
    plan = plan_of(settings, name, overrides)
    costs = forecasts(plan.stages)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in ("stage", "", "memory", "disk", "time", "why"):
        table.add_column(column, no_wrap=column != "why", overflow="fold")
    for stage, cost in zip(plan.stages, costs, strict=True):
        table.add_row(*row_of(stage, cost))
    console = Console()
    console.print(table)
    running = [cost for stage, cost in zip(plan.stages, costs, strict=True) if not stage.reused]
    console.print(f"\n{len(running)} of {len(plan.stages)} stages would run: {total_of(running)}", highlight=False)
    refuse_what_cannot_fit(settings, plan.stages, costs)


def total_of(running: Sequence[Cost]) -> str:
    """Return what the stages that would run take together, and how many of them are not in that figure."""
    if not running:
        return "nothing to do"
    known = [cost.seconds for cost in running if cost.seconds is not None]
    unknown = len(running) - len(known)
    if not known:
        return "no time known yet"
    return f"about {duration(sum(known))}" + (f", and {unknown} whose time is not known yet" if unknown else "")


def row_of(stage: Foreseen, cost: Cost) -> tuple[Text | str, ...]:
    """Return one stage's row; a stage that is reused costs nothing."""
    if stage.reused:
        return Text(stage.title, style="blue"), Text("reused", style="blue"), "", "", "", Text(stage.reason, "dim")
    memory = f"{cost.memory_bytes / GIB:.1f} GiB" if cost.memory_bytes else "?"
    disk = f"{cost.disk_bytes / 1e6:.0f} MB" if cost.disk_bytes is not None else "?"
    seconds = duration(cost.seconds) if cost.seconds is not None else "?"
    return Text(stage.title), Text("runs", style="cyan"), memory, disk, seconds, Text(f"{stage.reason}; {cost.basis}")


def plan_of(settings: Settings, name: str, overrides: Sequence[str]) -> Plan:
    """Walk a recipe's flow, with nothing started."""
    os.environ.update(prefect_environment(settings))
    recipe = load_recipe(name, overrides)
    from flows.session import flow_of, walk

    return walk(settings, flow_of(recipe), name, overrides)


def show_why(stage: str, recipe: str) -> None:
    """Print why a stage would run, down to the stages and the parts of their fingerprints that changed."""
    settings = Settings()
    record = read_record(find_run(settings)) if not recipe else None
    name = recipe or str(record.arguments.get("recipe_name", record.recipe) if record else "")
    overrides = tuple(record.arguments.get("overrides", ())) if record else ()
    plan = plan_of(settings, name, overrides)
    wanted = stage.replace("-", " ")
    chosen = [entry for entry in plan.stages if wanted in (entry.title, entry.stage.word)]
    if not chosen:
        raise StageError(f"{name} has no stage {stage!r}: {', '.join(entry.title for entry in plan.stages)}")
    for entry in chosen:
        print(f"{entry.title}: {'would be reused: ' if entry.reused else 'would run: '}{entry.reason}")
    roots = [entry for entry in plan.stages if not entry.reused and not entry.is_below_another]
    for entry in roots if any(not entry.reused for entry in chosen) else ():
        show_changes(plan, entry)


def show_changes(plan: Plan, entry: Foreseen) -> None:
    """Print what differs from a stage's last run: the parts of its fingerprint that changed."""
    parts = components(entry.stage, entry.config, entry.inputs, Code(entry.stage.word))
    changes = differences_from(plan.launch.store, entry.before, parts) if entry.before else ["never run before"]
    print(f"\n{entry.title} changed:")
    for line in changes:
        print(f"  {line}")
