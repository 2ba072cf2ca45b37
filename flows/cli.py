"""The `slipway` command.

Exit codes: 0 all is well, 1 a stage failed, 2 something that you gave is wrong, 130 interrupted.
Every import that costs time is inside the command that needs it, so that `slipway --help` answers at once.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from flows.export_commands import app as export

app = typer.Typer(
    name="slipway",
    help="Raw text and human judgement in, a served, quantized, aligned language model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(export, name="export")

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in recipe, or the path of your own.")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads it
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to single numbers, for example sft.learning_rate=1e-4."),
]
RunName = Annotated[str, typer.Argument(metavar="[RUN]", help="A run's name; the newest by default.")]


@app.command()
def run(recipe: RecipeName, overrides: Overrides = None) -> None:
    """Train, measure, quantize, package and serve a model. Stages that nothing changed for are reused."""
    from flows.session import run_recipe

    raise typer.Exit(run_recipe(recipe, overrides or []))


@app.command()
def plan(recipe: RecipeName, overrides: Overrides = None) -> None:
    """Say what would run, what would be reused and why, and what it would cost. Nothing is started."""
    from flows.plan_page import show_plan

    show_plan(recipe, overrides or [])


@app.command()
def check(recipe: RecipeName, overrides: Overrides = None) -> None:
    """Check a recipe and its data only: formats, rows, rejects with reasons, which tokens would be trained."""
    from flows.checking import check_recipe

    check_recipe(recipe, overrides or [])


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="The recipe file to write.")],
    source: Annotated[str, typer.Option("--from", metavar="NAME", help="The recipe to start from.")] = "tiny",
) -> None:
    """Write a recipe of your own, starting from another."""
    from flows.recipe_files import write_new

    write_new(file, source)


@app.command()
def recipes() -> None:
    """List the built-in recipes."""
    from flows.recipe_files import list_recipes

    list_recipes()


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe: every knob with its unit, range and consequence."""
    from flows.recipe_files import print_schema

    print_schema()


@app.command()
def why(
    stage: Annotated[str, typer.Argument(help="A stage, or a stage and its label: sft, evaluate-chat.")],
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe; that of the newest run by default.")] = "",
) -> None:
    """Say why a stage would run again: which part of its fingerprint changed since its last run."""
    from flows.plan_page import show_why

    show_why(stage, recipe)


@app.command()
def status() -> None:
    """Show the newest run, the served model and the local servers."""
    from flows.history import show_status

    show_status()


@app.command()
def logs(
    name: RunName = "latest",
    stage: Annotated[str, typer.Option("--stage", help="Only this stage's lines, for example data-corpus.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
) -> None:
    """Print what the stages of a run said."""
    from flows.history import show_logs

    show_logs(name, stage, follow)


@app.command()
def report(
    name: RunName = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Say where a run's report is, with its main figures; or print it as JSON."""
    from flows.history import show_report

    show_report(name, as_json)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="A model of the run: base, chat, ...")] = "",
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Ask this once and leave.")] = "",
    name: Annotated[str, typer.Option("--run", help="The run; the newest by default.")] = "latest",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 256,
) -> None:
    """Talk to any model of a run, the base included, straight from the store."""
    from flows.chat import talk

    talk(model, prompt, name, max_tokens)


@app.command()
def candidates(
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    name: Annotated[str, typer.Argument(metavar="[RECIPE_OR_RUN]", help="The newest run by default.")] = "latest",
    overrides: Overrides = None,
    form: Annotated[Literal["jsonl", "label-studio"], typer.Option("--format", help="Where people rank it.")] = "jsonl",
    model: Annotated[str, typer.Option("--model", help="A model of the run; chat by default.")] = "",
) -> None:
    """Draw several answers to each of a run's prompts, for people to rank; ranked, they are preference data."""
    from flows.candidates import export_candidates

    export_candidates(name, model, overrides or [], out, form)


@app.command()
def serve(
    bundle: Annotated[str, typer.Argument(metavar="[BUNDLE]", help="An address in the store; the newest run's.")] = "",
    port: Annotated[Optional[int], typer.Option("--port", help="Another port than the recipe's.")] = None,  # noqa: UP045
) -> None:
    """Serve a bundle behind an OpenAI-compatible API."""
    from flows.serving import serve_bundle

    serve_bundle(bundle, port)


@app.command()
def sign(
    bundle: Annotated[str, typer.Argument(metavar="[BUNDLE]", help="An address in the store; the newest run's.")] = "",
) -> None:
    """Sign a bundle of the store with this home's key. What a run packages is signed already."""
    from flows.serving import sign_again

    sign_again(bundle)


@app.command()
def key(
    owner: Annotated[str, typer.Argument(help="Whose key: limits are per owner.")] = "local",
    revoke: Annotated[bool, typer.Option("--revoke", help="End the owner's keys instead, at once.")] = False,
) -> None:
    """Make an API key for the served model and print it, once. An owner's last two keys are valid."""
    from flows.serving import make_key

    make_key(owner, revoke)


@app.command()
def stop() -> None:
    """Stop the served model."""
    from flows.serving import stop_serving

    stop_serving()


@app.command()
def up() -> None:
    """Start the local Prefect and MLflow pages over what runs wrote."""
    from infra.local import main as local

    raise typer.Exit(local("up"))


@app.command()
def down() -> None:
    """Stop the local Prefect and MLflow pages."""
    from infra.local import main as local

    raise typer.Exit(local("down"))


@app.command()
def doctor() -> None:
    """Look at this machine: what Slipway needs, what is there, and the way out."""
    from infra.doctor import main as examine

    raise typer.Exit(examine())


@app.command()
def prune(
    keep: Annotated[int, typer.Option("--keep", min=1, help="Runs to keep, the newest ones.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Free the disk: older runs, and what no kept run uses. The served bundle stays."""
    from flows.upkeep import prune_store

    prune_store(keep, dry_run)


@app.command()
def verify(
    addresses: Annotated[Optional[list[str]], typer.Argument(help="Addresses; the whole store by default.")] = None,  # noqa: UP045
) -> None:
    """Hash every file of the store and say what is damaged."""
    from flows.upkeep import verify_store

    raise typer.Exit(verify_store(addresses or []))


def main() -> None:
    """Run the command; turn every error into what, where, what to do, and an exit code."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from flows.failures import explained

    with explained():
        app()


if __name__ == "__main__":
    main()
