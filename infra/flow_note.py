"""A run's report as a Prefect markdown artifact: the figures that decide, and where the page is."""

import json
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact


def show_report(folder: Path) -> None:
    """Show the report of the run in `folder`, if it has one, on the page of the current flow run."""
    file = folder / "report.json"
    if file.exists():
        facts = json.loads(file.read_text(encoding="utf-8"))
        create_markdown_artifact(markdown_of(facts, folder / "report.html"), key="report", description=facts["run"])


def markdown_of(facts: dict[str, Any], page: Path) -> str:
    """Return report.json's main figures as markdown; the page itself has the pictures."""
    scores = [
        f"| {s['model']} | {s['measure']} | {s['value']:.3f} | {s['low']:.3f} - {s['high']:.3f} | {s['n']} |"
        for s in facts["scores"]
    ]
    formats = [
        f"| {q['format']} | {q['bytes'] / 1e6:.1f} | {percent(q['delta'])} | {'ships' if q['shipped'] else ''} |"
        for q in facts["quantization"]
    ]
    lines = [
        f"# {facts['run']}",
        f"{facts['seconds']:.0f} s in all; answers at {facts['endpoint']}. The whole report: `{page}`",
        "## Scores",
        "| model | measure | value | 95% interval | n |\n|---|---|---|---|---|\n" + "\n".join(scores),
        "## Formats",
        "| format | MB | perplexity | |\n|---|---|---|---|\n" + "\n".join(formats),
    ]
    return "\n\n".join(lines)


def percent(change: float | None) -> str:
    """Return a relative change as +1.2%."""
    return "" if change is None else f"{100 * change:+.2f}%"
