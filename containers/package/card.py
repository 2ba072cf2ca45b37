"""The model card: what the model is, how good it is, how it was made, where its limits are, how to use it."""

import json
from typing import Any

from jinja2 import Environment

from containers.contract import Scores, StageError
from containers.package.contract import PackageConfig
from containers.package.parity import is_strict
from containers.package.weights import Weights
from containers.reference import Reference
from containers.serve.bundle import Variant

TEMPLATE = """\
# {{ config.name }}

{{ config.description }}

| | |
|---|---|
| format | {{ quantized.format }} ({{ weights.layout }}, {{ megabytes }} MB) |
| architecture | {{ weights.architecture }}, {{ weights.context }} tokens of context |
{%- for name, value in facts %}
| {{ name }} | {{ value }} |
{%- endfor %}

## Scores

{% if scores -%}
Measured on held-out data that no stage trained on; the interval is the 95% bootstrap one. The models are those of the
run before quantization; what quantization changed is in the run's report.

| model | measure | value | interval | n |
|---|---|---|---|---|
{%- for score in scores %}
| {{ score.model }} | {{ score.measure }} | {{ score.value }} | {{ score.interval }} | {{ score.n }} |
{%- endfor %}
{%- else -%}
This model was packaged without scores.
{%- endif %}
{%- if data %}

## Data
{% for line in data %}
- {{ line }}
{%- endfor %}
{%- endif %}

{%- if variants %}

## Models

One base serves them all, each by its name as `model` in a request: LoRA adapters are added to it while it answers.

| model | base and adapters |
|---|---|
{%- for name, variant in variants.items() %}
| {{ name }} | {{ (("base",) + variant.adapters) | join(" + ") }} |
{%- endfor %}
{%- endif %}

{%- if config.prove_parity %}

## Parity

This bundle was asked the chats of `src/model/reference.json`, whose answers its 16-bit model gave in transformers: it
makes the same token ids{{ " and greedy answers" if strict }} of them, and its log-probabilities of those answers are
within {{ bound }} nats on average
{%- if variants %} (of each model with adapters: the chats in `src/adapters/`)
{%- endif %}. What was measured is in the run's report.
{%- endif %}
{%- if config.licences %}

## Licences

What the model was made of, and the licence that each part came under; whether its answers and weights are bound by them
is for you to judge. `src/sbom.cdx.json` lists the packages that serve it too.

| part | licence |
|---|---|
{%- for part, licence in config.licences.items() %}
| {{ part }} | {{ licence }} |
{%- endfor %}
{%- endif %}

## Limits

{{ config.limits }} A small model follows the style of its training data more readily than the truth: check what
matters.

## Use

    PYTHONDONTWRITEBYTECODE=1 bentoml serve . --port 3000

in this folder (Python with the packages of `env/python/requirements.txt`). It prints an API key; open
http://127.0.0.1:3000/#key=KEY for the chat page, or use any OpenAI client:

    curl http://127.0.0.1:3000/v1/chat/completions \\
      -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\
      -d '{"model": "{{ config.name }}", "messages": [{"role": "user", "content": "Hello"}]}'

Any ASGI server runs the same app: `cd src && uvicorn containers.serve.service:app --port 3000`. Settings (slots,
context, max_tokens, threads, temperature, limits) are passed as JSON in `SLIPWAY_SERVE`, and `{"authentication":
"none"}` there asks for no key; keys of your own are sha256 digests in a file, `{"owner": ["..."]}`, named by
`SLIPWAY_KEYS`; what people say of answers is kept in the folder `SLIPWAY_FEEDBACK`, if that is given. The service
refuses to start when a file differs from `src/manifest.json`; `src/provenance.json` says what the model was made from.
With `SLIPWAY_TRUSTED_KEY` (a public key, PEM) it starts only if that key signed every file here: the signature is
`model.sig` in this folder, or the file `SLIPWAY_SIGNATURE`. `model_signing verify key` asks the same before any of the
bundle's code runs.
"""


class ModelCard:
    """Everything that the card says."""

    def __init__(
        self, config: PackageConfig, weights: Weights, scores: tuple[Scores, ...], variants: dict[str, Variant]
    ) -> None:
        """Take what a person wrote, what ships, what was measured, and the models that adapters make of the weights."""
        self.config, self.weights, self.scores, self.variants = config, weights, scores, variants

    def text(self) -> str:
        """Return the card as Markdown."""
        quantized = self.weights.quantized
        strict = self.config.prove_parity and is_strict(quantized.format, Reference.read(quantized.path))
        environment = Environment(autoescape=False, keep_trailing_newline=True)
        return environment.from_string(TEMPLATE).render(
            config=self.config,
            variants=self.variants,
            weights=self.weights,
            quantized=quantized,
            megabytes=round(self.weights.bytes / 1e6, 1),
            facts=self.facts(),
            strict=strict,
            bound=self.config.max_parity_nats_16bit if strict else self.config.max_parity_nats,
            scores=self.scored(),
            data=self.config.provenance.get("data", ()),
        )

    def scored(self) -> tuple[dict[str, Any], ...]:
        """Return what was measured, one row per model and measure."""
        return tuple(row for scores in self.scores for row in rows_of(scores))

    def facts(self) -> list[tuple[str, str]]:
        """Return what provenance says in one line each."""
        known = self.config.provenance
        return [(name, str(known[name])) for name in ("recipe", "base", "git", "licence") if known.get(name)]


def rows_of(scores: Scores) -> list[dict[str, Any]]:
    """Return one row per measure of scores.json."""
    file = scores.path / "scores.json"
    if not file.is_file():
        raise StageError(f"{file} is missing: these are not scores of the evaluate stage")
    rows = []
    for score in json.loads(file.read_text(encoding="utf-8"))["measures"]:
        low, high = score.get("low"), score.get("high")
        interval = "" if low is None or high is None else f"[{low:.4g}, {high:.4g}]"
        row = {"model": scores.model, "measure": score["measure"], "n": score.get("n", "")}
        rows.append({**row, "value": f"{score['value']:.4g}", "interval": interval})
    return rows
