"""Pictures of a report: SVG that takes its ink from the page, so that it reads in light and in dark."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from infra.report.shape import QuantizationLine, ScoreLine, StageLine

INK = "#010203"
PALETTE = ("#2f81f7", "#e5734a", "#3fa27c", "#a371f7", "#d4a72c")
Curve = Sequence[tuple[float, float]]


def drawn(figure: Figure) -> str:
    """Return a figure as an inline SVG element whose ink is the page's text colour."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "slipway", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None}, bbox_inches="tight")
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def canvas(height: float = 2.6, width: float = 7.2) -> tuple[Figure, Axes]:
    """Return a figure and its axes, quiet: two spines, faint grid, ink that the page replaces."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    return figure, ruled(axes)


def ruled(axes: Axes) -> Axes:
    """Return axes made quiet: two spines, faint grid, ink that the page replaces."""
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def curves(lines: dict[str, Curve], xlabel: str, ylabel: str) -> str:
    """Draw named curves over optimizer steps."""
    figure, axes = canvas()
    for (name, points), colour in zip(lines.items(), PALETTE * 3, strict=False):
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) < 12 else None
        axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=3.5, label=name)
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_ylabel(ylabel, color=INK, fontsize=9)
    if len(lines) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return drawn(figure)


def scores_by_model(scores: Sequence[ScoreLine], title: str) -> str:
    """Draw shares (0..1) of each measure as one row of dots with intervals, one colour per model."""
    measures = list(dict.fromkeys(s.measure for s in scores))
    models = list(dict.fromkeys(s.model for s in scores))
    figure, axes = canvas(height=0.7 + 0.34 * len(measures))
    for offset, (model, colour) in enumerate(zip(models, PALETTE * 3, strict=False)):
        mine = [s for s in scores if s.model == model]
        rows = [measures.index(s.measure) + 0.16 * (offset - (len(models) - 1) / 2) for s in mine]
        errors = [[s.value - s.low for s in mine], [s.high - s.value for s in mine]]
        values = [s.value for s in mine]
        axes.errorbar(values, rows, xerr=errors, fmt="o", color=colour, markersize=5, linewidth=1.4, label=model)
    axes.set_yticks(range(len(measures)), [m.removeprefix("accuracy/") for m in measures])
    axes.set_xlim(-0.02, 1.02)
    axes.invert_yaxis()
    axes.set_xlabel(title, color=INK, fontsize=9)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, ncols=len(models), loc="lower left", bbox_to_anchor=(0, 1))
    return drawn(figure)


def calibration(bins: Sequence[Mapping[str, float]]) -> str:
    """Draw how often the better answer of a pair scored higher, against how sure the reward model was of it."""
    figure, axes = canvas(height=2.8, width=4.2)
    axes.plot([0.5, 1], [0.5, 1], color=INK, alpha=0.4, linewidth=1, linestyle="--")
    most = max(row["pairs"] for row in bins)
    sizes = [20 + 160 * row["pairs"] / most for row in bins]
    axes.scatter([b["predicted"] for b in bins], [b["observed"] for b in bins], s=sizes, color=PALETTE[0], alpha=0.8)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("predicted; area: pairs", color=INK, fontsize=9)
    axes.set_ylabel("observed", color=INK, fontsize=9)
    return drawn(figure)


def timeline(stages: Sequence[StageLine]) -> str:
    """Draw the seconds of each stage, one bar after the other."""
    figure, axes = canvas(height=0.6 + 0.28 * len(stages))
    start = 0.0
    for row, stage in enumerate(stages):
        colour = PALETTE[2] if stage.status == "cached" else PALETTE[0]
        axes.barh(row, max(stage.seconds, 0.3), left=start, color=colour, height=0.62)
        axes.text(start + max(stage.seconds, 0.3), row, f" {stage.seconds:.1f} s", va="center", fontsize=8, color=INK)
        start += stage.seconds
    axes.set_yticks(range(len(stages)), [s.name for s in stages])
    axes.invert_yaxis()
    axes.set_xlabel("seconds", color=INK, fontsize=9)
    return drawn(figure)


def sizes(lines: Sequence[QuantizationLine]) -> str:
    """Draw size against the loss in perplexity and against KL divergence, the shipped format filled.

    A format that doubles the perplexity, or that was not read, has no place there.
    """
    figure = Figure(figsize=(8.4, 2.9))
    panels = [ruled(axes) for axes in figure.subplots(1, 2)]
    names = ("perplexity, % above 16 bit", "KL divergence, nats per token")
    for axes, name in zip(panels, names, strict=True):
        axes.margins(x=0.25, y=0.25)
        axes.set_xlabel("size, MB", color=INK, fontsize=9)
        axes.set_ylabel(name, color=INK, fontsize=9)
        axes.locator_params(axis="x", nbins=5)
    panels[1].set_yscale("log")
    shown = [line for line in lines if line.delta is not None and line.delta < 1]
    for number, line in enumerate(sorted(shown, key=lambda line: line.bytes)):
        above = number % 2 == 0  # neighbours in size: one name above its dot, the next below
        marked(panels[0], line, 100 * (line.delta or 0), above=above)
        if line.kl_divergence:
            marked(panels[1], line, line.kl_divergence, above=above)
    figure.tight_layout(w_pad=3)
    return drawn(figure)


def marked(axes: Axes, line: QuantizationLine, height: float, *, above: bool) -> None:
    """Put a named dot at a format's size."""
    face = PALETTE[0] if line.shipped else "none"
    place = (line.bytes / 1e6, height)
    axes.scatter(*place, s=70, facecolors=face, edgecolors=PALETTE[0], linewidth=1.6)
    axes.annotate(
        line.format, place, textcoords="offset points", xytext=(8, 5 if above else -13), color=INK, fontsize=9
    )
