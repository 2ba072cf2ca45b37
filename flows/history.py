"""What was run and what runs now: `slipway status`, `logs` and `report`."""

import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from containers.contract import StageError
from flows.board import MARKS, duration
from infra.journal import Event, read_from
from infra.local import status as show_servers
from infra.runs import RunRecord, find_run, read_record
from infra.service import service_status
from infra.settings import Settings

SHOWN = {"started", "cached", "log", "finished", "failed", "stopped", "end"}
POLL_SECONDS = 0.5


def show_status() -> None:
    """Print the newest run with its stages, the served model and the local servers."""
    settings, console = Settings(), Console()
    if (settings.runs / "latest").exists():
        show_run(console, read_record(find_run(settings)))
    else:
        console.print("no run yet: start one with `slipway run tiny`")
    service = service_status(settings)
    endpoint = service.endpoint if service else None
    served = f"{endpoint.model} at {endpoint.url}" if endpoint else "does not answer yet" if service else "nothing"
    console.print(f"\nserved   {served}", highlight=False)
    show_servers(settings)


def show_run(console: Console, record: RunRecord) -> None:
    """Print one run."""
    took = duration((record.ended or time.time()) - record.began)
    console.print(f"[bold]{record.run}[/]  {record.status}  {took}", highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=False)
    for entry in record.stages:
        status = "killed" if entry.status == "running" and record.status == "killed" else entry.status
        mark = Text(status, style=MARKS.get(status, "red"))
        table.add_row(entry.title, mark, duration(entry.seconds), entry.address)
    console.print(table)
    if record.error:
        console.print(f"error: {record.error}", style="red", highlight=False, markup=False)


def show_logs(name: str, stage: str, follow: bool) -> None:
    """Print what the stages of a run said; with `follow`, until it ends."""
    folder = find_run(Settings(), name)
    position, ended = 0, False
    while True:
        events, position = read_from(folder, position)
        for event in events:
            ended = ended or event["event"] == "end"
            if event["event"] in SHOWN and (not stage or event["stage"] == stage):
                print(line_of(event), flush=True)
        if ended or not follow or read_record(folder).status != "running":
            return
        time.sleep(POLL_SECONDS)


def line_of(event: Event) -> str:
    """Return one event as a line."""
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    kind = event["event"]
    words = {
        "log": event.get("text", ""),
        "started": f"started {event.get('address', '')}".strip(),
        "cached": f"reused {event.get('address', '')}",
        "finished": f"done in {duration(event.get('seconds', 0))}",
        "failed": f"failed: {event.get('error', '')}",
        "stopped": "stopped",
        "end": f"run {event.get('status', '')}",
    }
    mark = {"error": "E ", "warning": "W "}.get(event.get("level", ""), "")
    return f"{clock}  {event['stage']:20} {mark}{words[kind]}"


def show_report(name: str, as_json: bool) -> None:
    """Print report.json, or where the page is and its main figures; raises StageError when there is none."""
    folder = find_run(Settings(), name)
    file = folder / "report.json"
    if not file.exists():
        raise StageError(f"{folder.name} has no report: it ended as {read_record(folder).status!r} before writing one")
    text = file.read_text(encoding="utf-8")
    if as_json:
        print(text)
        return
    show_figures(Console(), json.loads(text), folder / "report.html")


def show_figures(console: Console, facts: dict[str, object], page: Path) -> None:
    """Print a report's scores and formats, and the address of its page."""
    scores = Table("model", "measure", "value", "95% interval", "n", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for line in facts["scores"]:  # type: ignore[attr-defined]
        interval = f"{line['low']:.3f} - {line['high']:.3f}"
        scores.add_row(line["model"], line["measure"], f"{line['value']:.3f}", interval, str(line["n"]))
    formats = Table(
        "format", "MB", "perplexity", "KL", "top-1", "solved", "", box=None, pad_edge=False, padding=(0, 3, 0, 0)
    )
    for line in facts["quantization"]:  # type: ignore[attr-defined]
        agreement = "" if line["top1_agreement"] is None else f"{line['top1_agreement']:.3f}"
        perplexity = "" if line["perplexity"] is None else f"{line['perplexity']:.3f}"
        divergence = "" if line["kl_divergence"] is None else f"{line['kl_divergence']:.2g}"
        solved = "" if line["accuracy"] is None else f"{line['accuracy']:.3f}"
        size, ships = f"{line['bytes'] / 1e6:.1f}", "ships" if line["shipped"] else ""
        formats.add_row(line["format"], size, perplexity, divergence, agreement, solved, ships)
    console.print(f"[bold]{facts['run']}[/]", highlight=False)
    console.print(scores)
    console.print(formats)
    console.print(f"page: {page.as_uri()}", highlight=False, soft_wrap=True)
