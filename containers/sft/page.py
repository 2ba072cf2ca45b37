"""mask.html: conversations as the model sees them, trained tokens in colour. Self-contained, light and dark."""

import html
from typing import Any

Span = tuple[str, bool, bool]
"""Text, trained, control token."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --paper: #fbfbf9; --faint: #6b7480; --line: #dfe3e8;
  --taught: #0b6b3a; --wash: #d5f2e0; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171c; --faint: #98a2b0; --line: #2c333d;
  --taught: #8fe3b4; --wash: #173d2a; --bad: #ff8a80; } }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.lead { color: var(--faint); margin: 0 0 1.5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td { border-top: 1px solid var(--line); padding: .4rem .75rem .4rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; } .holds { color: var(--taught); } .fails { color: var(--bad); font-weight: 600; }
pre { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13.5px/1.6 ui-monospace, monospace; color: var(--faint); }
pre b { font-weight: 500; color: var(--taught); background: var(--wash); border-radius: .2rem; }
pre i { font-style: normal; opacity: .6; } pre b i, pre b.c { opacity: 1; box-shadow: inset 0 -2px var(--taught); }
"""


def page_of(record: dict[str, Any], samples: list[list[Span]]) -> str:
    """Return the page for a certificate's values and sample conversations."""
    claims = "".join(
        f"<tr><td class={'holds' if c['holds'] else 'fails'}>{'&check;' if c['holds'] else '&cross;'} "
        f"{html.escape(c['name'])}</td><td>{html.escape(c['seen'])}</td></tr>"
        for c in record["claims"]
    )
    names = ("conversations", "tokens", "trained_tokens", "truncated", "dropped_empty", "tokens_unlike_transformers")
    counts = "".join(f"<tr><td>{n.replace('_', ' ')}</td><td>{record[n]:,}</td></tr>" for n in names)
    shown = "".join(f"<pre>{''.join(map(marked, spans))}</pre>" for spans in samples)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Mask certificate</title><style>{STYLE}</style><h1>Mask certificate</h1>"
        "<p class=lead>The loss falls on the <b class=holds>coloured</b> tokens and on nothing else.</p>"
        f"<table>{claims}</table><h2>What training sees</h2><table>{counts}</table>"
        f"<h2>{len(samples)} of {record['conversations']:,} conversations</h2>{shown}"
        f"<p class=lead>dataset {record['dataset'][:12]} &middot; tokenizer {record['tokenizer'][:12]} &middot; "
        f"template {record['template'][:12]}</p></html>\n"
    )


def marked(span: Span) -> str:
    """Return one run of tokens as HTML."""
    text, trained, control = span
    safe = html.escape(text)
    if trained:
        return f"<b class=c>{safe}</b>" if control else f"<b>{safe}</b>"
    return f"<i>{safe}</i>" if control else safe
