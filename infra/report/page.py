"""The report as one self-contained HTML page: everything inline, readable in light and dark, on paper and phone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, select_autoescape

from infra.report import figures
from infra.report.lessons import LESSONS, Lesson
from infra.report.shape import ChangeLine, ReportFacts

HERE = Path(__file__).parent
CURVES = (
    ("loss", "loss"), ("validation_bits_per_byte", "bits per byte, held out"), ("margin", "margin of a pair"),
    ("reward", "reward"), ("kl", "KL to the reference, nats"), ("exact_match", "right answers, held out"),
)  # fmt: skip
"""Metrics drawn as curves, each with the name of its axis."""
ACCURACY = "accuracy/"
SHARES = ("accuracy", "refusal_rate", "over_refusal_rate", "courtesy_rate", "pair_accuracy")
LEAF_BYTES = 1000


class StageView(NamedTuple):
    """What the page shows of one stage run."""

    name: str
    word: str
    label: str
    metrics: dict[str, float]
    config: dict[str, Any]
    inputs: dict[str, str]
    """Input name -> digest."""
    card: dict[str, Any]
    points: dict[str, list[tuple[float, float]]]
    """Metric -> (step, value) in order."""


def rendered(facts: ReportFacts, description: str, stages: Sequence[StageView], reproduce: str) -> str:
    """Return the page of a run."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=select_autoescape(["html", "j2"]))
    environment.filters.update(figure=figure, words=words, measured=measured, percent=percent)
    seen: set[str] = set()
    return environment.get_template("page.html.j2").render(
        facts=facts,
        description=description,
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        headline=headline(facts),
        timeline=figures.timeline(facts.stages),
        score_pictures=score_pictures(facts),
        changes=changes(facts),
        sections=[section(stage, facts, first=not (stage.word in seen or seen.add(stage.word))) for stage in stages],  # type: ignore[func-returns-value]
        reproduce=reproduce,
    )


def section(stage: StageView, facts: ReportFacts, *, first: bool) -> dict[str, Any]:
    """Return the values of one stage's section; `first` is whether its word appears for the first time."""
    lesson: Lesson | None = LESSONS.get(stage.word)
    pictures = [
        figures.curves({name: stage.points[name]}, "optimizer steps", axis)
        for name, axis in CURVES
        if len(stage.points.get(name, ())) > 1
    ]
    calibration = stage.card.get("held_out", {}).get("calibration") if stage.word == "reward" else None
    if calibration:
        pictures.append(figures.calibration(calibration))
    if stage.word == "quantize" and facts.quantization:
        pictures.append(figures.sizes(facts.quantization))
    formats = facts.quantization if stage.word == "quantize" else ()
    card = {name: value for name, value in stage.card.items() if not (formats and name == "formats")}
    config = json.dumps(stage.config, indent=1, ensure_ascii=False)
    told = {"lesson": lesson, "first": first, "pictures": pictures, "formats": formats, "card": card, "config": config}
    return stage._asdict() | told


def score_pictures(facts: ReportFacts) -> list[str]:
    """Return one picture of accuracies per task and one of the other shares."""
    tasks = [s for s in facts.scores if s.measure.startswith(ACCURACY)]
    shares = [s for s in facts.scores if s.measure in SHARES]
    shares += [s for s in facts.scores if s.measure.startswith("exact_match")]
    pictures = [(tasks, "answer accuracy by task"), (shares, "share of items")]
    return [figures.scores_by_model(lines, title) for lines, title in pictures if lines]


def changes(facts: ReportFacts) -> dict[str, list[ChangeLine]]:
    """Return, for each model after the one that alignment started from, what chance does not explain: losses first."""
    models = dict.fromkeys(line.model for line in facts.changes)
    told = sorted((line for line in facts.changes if line.verdict != "same"), key=lambda line: line.verdict == "better")
    return {model: [line for line in told if line.model == model] for model in models}


def headline(facts: ReportFacts) -> list[dict[str, str]]:
    """Return the few figures that a reader looks for first, those that this run has."""
    found = []
    last = facts.scores[-1].model if facts.scores else ""
    named = {s.measure: s for s in facts.scores if s.model == last}
    if "accuracy" in named:
        found.append({"value": f"{named['accuracy'].value:.1%}", "name": f"right answers, {last}"})
    texts = [s for s in facts.scores if s.measure == "bits_per_byte"]
    if texts:  # of the model that knows text best: who learns to answer forgets some of it
        best = min(texts, key=lambda s: s.value)
        found.append({"value": f"{best.value:.3f}", "name": f"bits per byte, {best.model}"})
    for line in facts.quantization:
        if line.shipped:
            found.append({"value": size(line.bytes), "name": f"served as {line.format}"})
    found.append({"value": duration(facts.seconds), "name": "from first stage to report"})
    return found


def figure(value: float) -> str:
    """Return a number as people read it: three significant decimals, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return (
        f"{value:,}" if isinstance(value, int) or (value == int(value) and abs(value) >= LEAF_BYTES) else f"{value:.4g}"
    )


def measured(value: float, name: str) -> str:
    """Return a metric in the unit that its name says."""
    if name.endswith("bytes"):
        return size(value)
    if name.endswith("seconds"):
        return duration(value)
    return figure(int(value) if value == int(value) else value)


def size(count: float) -> str:
    """Return bytes in the unit that keeps the number short."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < LEAF_BYTES:
            return f"{count:.3g} {unit}"
        count /= LEAF_BYTES
    return f"{count:.3g} TB"


def percent(change: float) -> str:
    """Return a relative change as people read it: +0.32%."""
    return f"{100 * change:+.2g}%"


def duration(seconds: float) -> str:
    """Return seconds as `42 s`, `3 min 20 s` or `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.3g} s"


def words(name: str) -> str:
    """Return a key as words."""
    return str(name).replace("_", " ")
