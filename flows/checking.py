"""A recipe, its data and what the loss would fall on, looked at before a model is trained: `slipway check`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from containers.certify.contract import CertifyOutputs
from containers.contract import StageError
from flows.board import Board
from flows.recipe import load_recipe
from infra.embedded import prefect_environment
from infra.launch import Launch, StageRecord, launching
from infra.runners.choice import runner_of
from infra.settings import Settings
from infra.store import Store

SHOWN_REJECTS = 3
STAGES = ("data", "tokenizer", "certify")
PLAIN: dict[str, Any] = {"highlight": False, "markup": False}


def check_recipe(name: str, overrides: Sequence[str]) -> None:
    """Clean the recipe's data (kept for the run that follows) and print what was found, role by role.

    Raises StageError where the mask certificate, which training demands, does not hold.
    """
    settings, console = Settings(), Console()
    recipe = load_recipe(name, overrides)
    os.environ.update(prefect_environment(settings))
    from flows.chapters import foreseen_mask

    board = Board(console)
    launch = Launch(settings, Store(settings.store), runner_of(settings, STAGES), (board,))
    with launching(launch):
        try:
            with board:
                certificate = foreseen_mask(recipe)
        finally:
            for record in launch.stages:
                if record.name == "data" and record.result:
                    show_card(console, card_of(settings, record))
    show_certificate(console, certificate, card_of(settings, launch.stages[-1]))


def card_of(settings: Settings, record: StageRecord) -> Path:
    """Return the folder of a stored stage's card."""
    return settings.store / record.address / "outputs" / "card"


def show_certificate(console: Console, certificate: CertifyOutputs, folder: Path) -> None:
    """Print what the loss would fall on and what was proved of it; raises StageError when a claim does not hold."""
    share = certificate.trained_tokens / certificate.tokens
    console.print(
        f"\n[bold]mask certificate[/]  {certificate.conversations:,} conversations, "
        f"{certificate.trained_tokens:,} of {certificate.tokens:,} tokens trained ({share:.0%}), "
        f"{certificate.truncated:,} cut to sft.max_length, {certificate.dropped_empty:,} dropped: no answer within it",
        highlight=False,
    )
    for claim in json.loads((folder / "certificate.json").read_text(encoding="utf-8"))["claims"]:
        console.print(f"{'holds' if claim['holds'] else 'FAILS'}    {claim['name']}: {claim['seen']}", **PLAIN)
    console.print(f"page: {(folder / 'mask.html').as_uri()}", highlight=False, soft_wrap=True)
    if certificate.broken:
        raise StageError(
            f"the mask certificate does not hold, so sft would refuse to start: {'; '.join(certificate.broken)}. "
            "Mend the chat template (chat_template.jinja beside the tokenizer) or the conversations"
        )


def show_card(console: Console, folder: Path) -> None:
    """Print a dataset's card: files with their formats, what each step took, rejects with reasons."""
    card: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    console.print(f"\n[bold]{card['role']}[/]  " + ", ".join(f"{n:,} {split}" for split, n in card["rows"].items()))
    files = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in card["files"][0] if card["files"] else ():
        files.add_column(column)
    for seen in card["files"]:
        files.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in seen.values()))
    if card["files"]:
        console.print(files)
    console.print("steps    " + ", ".join(f"{step} {rows:,}" for step, rows in card["steps"].items()), highlight=False)
    for reason, count in card["rejects"].items():
        console.print(f"rejected {count:,}: {reason}", **PLAIN)
    for line in (folder / "rejects.jsonl").read_text(encoding="utf-8").splitlines()[:SHOWN_REJECTS]:
        console.print(f"  {line}", **PLAIN, overflow="ellipsis", no_wrap=True)
    console.print(f"page: {(folder / 'card.html').as_uri()}", highlight=False, soft_wrap=True)
