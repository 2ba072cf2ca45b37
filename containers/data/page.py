"""The card as one self-contained page, for light and dark screens."""

from typing import Any

from jinja2 import Environment

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Data card: {{ role }}</title>
<style>
:root { color-scheme: light dark; --ink: light-dark(#1c2530, #e3e8ee); --dim: light-dark(#5b6875, #98a4b1);
  --paper: light-dark(#fbfbf9, #14181d); --line: light-dark(#dfe3e6, #2b333c); --bar: light-dark(#2f6f8f, #69b1d2);
  --lost: light-dark(#b4552d, #e09066); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { color: var(--dim); margin: .2rem 0 .8rem; max-width: 44rem; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .25rem .6rem .25rem 0; text-align: left;
  border-bottom: 1px solid var(--line); vertical-align: top; } th { font-weight: 600; color: var(--dim); font-size:
.85rem; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; width: 6rem; }
td.bar { width: 45%; vertical-align: middle; }
.bar i { display: block; height: .7rem; border-radius: 2px; background: var(--bar);
min-width: 2px; }
.lost i { background: var(--lost); } .scroll { overflow-x: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid var(--line); padding: .1rem .8rem;
margin: .6rem 0; }
</style></head><body>
{% macro bars(rows, lost=[]) %}{% set top = [rows | map(attribute=1) | max, 1] | max %}
<table>{% for name, count in rows %}<tr{% if name in lost %} class="lost"{% endif %}><td>
{{ name | replace("_", " ") }}</td>
<td class="n">{{ "{:,}".format(count) }}</td>
<td class="bar">{% if count %}<i style="width:{{ 100 * count / top }}%"></i>{% endif %}</td></tr>
{% endfor %}</table>{% endmacro %}
<h1>{{ role | capitalize }}</h1>
<p>{{ "{:,}".format(steps.kept) }} of {{ "{:,}".format(steps.read) }} rows kept:
{% for split, count in rows.items() %}{{ "{:,}".format(count) }} {{ split }}{{ ", " if not loop.last }}{% endfor
%}.</p>
<h2>What each step took</h2>
{{ bars(steps.items() | list, ["rejected", "dropped_by_quality", "contaminated", "exact_duplicates",
"near_duplicates"]) }}
<h2>What was read</h2>
<div class="scroll"><table><tr><th>file</th><th>cut as</th><th>understood as</th><th class="n">rows</th>
<th class="n">rejects</th></tr>
{% for file in files %}<tr><td>{{ file.file }}</td><td>{{ file.kind }}</td><td>
{{ file.shape | replace("_", " ") }}</td>
<td class="n">{{ "{:,}".format(file.rows) }}</td><td class="n">{{ "{:,}".format(file.rejects) }}</td></tr>
{% endfor %}</table></div>
{% if rejects %}<h2>Why rows were rejected</h2><p>Each with its file and line in rejects.jsonl.</p>
{{ bars(rejects.items() | list) }}{% endif %}
{% if rankings %}<h2>How people ranked</h2>
<p>{{ "{:,}".format(rankings.rankings) }} rankings of {{ "{:,}".format(rankings["items"]) }} prompts by
{{ "{:,}".format(rankings.raters) }} raters. {% if rankings.agreement.agreeing_share is not none %}Where several ranked
the same answers, two raters agreed on {{ "{:.0%}".format(rankings.agreement.agreeing_share) }} of
{{ "{:,}".format(rankings.agreement.compared) }} comparisons{% if rankings.agreement.alpha is not none %}
(Krippendorff's alpha {{ "{:.2f}".format(rankings.agreement.alpha) }}; 1 is full agreement, 0 is chance){% endif
%}.{% else %}No prompt was ranked by two raters, so nothing is known of their agreement.{% endif %}</p>
{{ bars([("pairs", rankings.pairs), ("tied", rankings.tied), ("without majority", rankings.without_majority),
("not ranked yet", rankings.unranked)], ["tied", "without majority", "not ranked yet"]) }}{% endif %}
{% if quality %}<h2>Which filter dropped a document</h2>{{ bars(quality.items() | list) }}{% endif %}
{% if changed %}<h2>What was changed in rows on the way</h2>{{ bars(changed.items() | list) }}{% endif %}
<h2>Personal data</h2>
<p>{% if pii.mode == "off" %}Not looked for.{% elif not pii.found %}None found.{% else %}
{{ "{:,}".format(pii.rows) }} rows hold some;
it was {{ "replaced by its kind" if pii.mode == "scrub" else "counted and left in place" }}.{% endif %}</p>
{% if pii.found %}{{ bars(pii.found.items() | list) }}{% endif %}
<h2>Length of the rows kept</h2><p>Characters, up to the number shown.</p>{{ bars(lengths.items() | list) }}
<h2>Tasks</h2>{{ bars(tasks.items() | list) }}
<h2>Samples</h2>
{% if role == "preferences" %}<p>Not shown: preference data often holds offensive language on purpose.</p>{% endif %}
{% for sample in samples %}<pre>{{ sample }}</pre>{% endfor %}
</body></html>
"""


def page_of(values: dict[str, Any]) -> str:
    """Return the page that shows a card's values."""
    return Environment(autoescape=True).from_string(TEMPLATE).render(**values)
