"""health.html: every watched figure with its bound, and the worst answers. Self-contained, light and dark."""

import html
from typing import Any

WIDTH, HEIGHT = 320, 110

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --paper: #fbfbf9; --faint: #6b7480; --line: #dfe3e8;
  --curve: #2457a6; --bad: #b3261e; --good: #0b6b3a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171c; --faint: #98a2b0; --line: #2c333d;
  --curve: #8ab4f8; --bad: #ff8a80; --good: #8fe3b4; } }
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.lead { color: var(--faint); margin: 0 0 1.5rem; } .bad { color: var(--bad); font-weight: 600; }
.good { color: var(--good); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { border-top: 1px solid var(--line); padding: .4rem .75rem .4rem 0; vertical-align: top; text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
figcaption { font-size: .9rem; } svg { width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--faint); font: 9px system-ui, sans-serif; }
.curve { fill: none; stroke: var(--curve); stroke-width: 1.5; } .bound { stroke: var(--bad); stroke-dasharray: 4 3; }
pre { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13.5px/1.6 ui-monospace, monospace; }
pre b { color: var(--faint); font-weight: 500; }
"""


def page_of(record: dict[str, Any]) -> str:
    """Return the page for the values of health.json."""
    broken = [f for f in record["findings"] if f["bound"] in record["broken"]]
    causes = "".join(f"<p class=bad>health.{f['bound']} {f['limit']:g}: {html.escape(f['says'])}.</p>" for f in broken)
    rows = "".join(
        f"<tr><td class={'bad' if f in broken else 'good'}>{'&cross;' if f in broken else '&check;'} {f['bound']}</td>"
        f"<td>{f['limit']:g}</td><td>{html.escape(f['says'])}</td></tr>"
        for f in record["findings"]
    )
    lines = {f["figure"]: (f["lines"], f in broken) for f in record["findings"]}
    plots = "".join(plot(name, points, *lines.get(name, ((), False))) for name, points in record["curves"].items())
    shown = "".join(
        f"<pre><b>reward {s['reward']:.4g}</b>\n<b>{html.escape(s['prompt'])}</b>\n{html.escape(s['answer'])}</pre>"
        for s in record["worst"]
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Run stopped</title><style>{STYLE}</style><h1>Stopped after step {record['step']}</h1>"
        f"<p class=lead>The checkpoint is kept.</p>{causes}<h2>Bounds</h2>"
        f"<table><tr><th>bound</th><th>limit</th><th>seen</th></tr>{rows}</table>"
        f"<h2>Figures</h2><div class=plots>{plots}</div><h2>Worst answers</h2>"
        f"{shown or '<p>None were kept.</p>'}</html>\n"
    )


def plot(name: str, points: list[tuple[int, float]], lines: tuple[float, ...], broken: bool) -> str:
    """Return one curve with its bounds as a figure; a bound far off the curve is only named."""
    values = [value for _, value in points]
    low, high = min(values), max(values)
    for line in lines:
        if abs(line - min(max(line, low), high)) <= max(high - low, abs(high)) * 2:
            low, high = min(low, line), max(high, line)
    span, last = (high - low) or 1.0, max(points[-1][0], 1)

    def y(value: float) -> float:
        return HEIGHT - (value - low) / span * HEIGHT

    path = " ".join(f"{step / last * WIDTH:.1f},{y(value):.1f}" for step, value in points)
    bounds = "".join(
        f"<line class=bound x1=0 x2={WIDTH} y1={y(line):.1f} y2={y(line):.1f}></line>"
        for line in lines
        if low <= line <= high
    )
    named = "".join(f", bound {line:.4g}" for line in lines)
    return (
        f"<figure><figcaption class={'bad' if broken else 'name'}>{name.replace('_', ' ')}: {values[-1]:.4g}{named}"
        f"</figcaption><svg viewBox='-2 -8 {WIDTH + 4} {HEIGHT + 22}' role=img aria-label='{name}'>"
        f"<polyline class=curve points='{path}'></polyline>{bounds}<text x=0 y={HEIGHT + 12}>{low:.4g} to {high:.4g}"
        f"</text><text x={WIDTH} y={HEIGHT + 12} text-anchor=end>step {points[-1][0]}</text></svg></figure>"
    )
