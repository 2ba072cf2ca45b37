"""The gate: a format ships when the engine that will serve it reads it within the recipe's bounds.

Formats are tried from the smallest (or the named one) up, 16 bit last; what does not pass says why.
"""

from typing import Any

from containers.contract import StageError
from containers.mcnemar import SIGNIFICANT
from containers.quantize.config import QuantizeConfig
from containers.quantize.gguf_types import WEIGHTS

Line = dict[str, Any]
SMALLEST = "smallest_within"
ROUNDING = 0.001
"""What 16 bits may cost in perplexity however tight the recipe's bound is, relative."""


def last_of(config: QuantizeConfig) -> str:
    """Return the format that ends the chain: 16 bits, to which nothing is nearer."""
    return "f16" if config.ships_gguf else "bf16"


def chain_of(lines: list[Line], config: QuantizeConfig) -> list[Line]:
    """Return the rows in the order in which they are tried: the named one or the smallest, then larger ones, 16 bit."""
    kind = [line for line in lines if (line["format"] in WEIGHTS) == config.ships_gguf]
    least = min(line["bytes"] for line in kind if config.ship in (SMALLEST, line["format"]))
    last = [line for line in kind if line["format"] == last_of(config)]
    larger = [line for line in kind if line["bytes"] >= least and line not in last]
    return [*sorted(larger, key=lambda line: (line["format"] != config.ship, line["bytes"])), *last]


def passing(lines: list[Line], config: QuantizeConfig) -> Line | None:
    """Return the first row of the chain that passes the gate, None where none does."""
    return next((line for line in chain_of(lines, config) if not broken(line, config)), None)


def choose(lines: list[Line], config: QuantizeConfig) -> Line:
    """Return the row that ships; every row gets `shipped` and `reason`.

    The first of the chain that passes, else 16 bit for want of a better. Raises StageError where 16 bit itself is far
    from the parent: then the conversion is wrong, not the rounding.
    """
    chain = chain_of(lines, config)
    plain = chain[-1]
    chosen = passing(lines, config) or plain
    if chosen is plain and (plain.get("refused") or plain["delta"] > max(config.max_perplexity_increase, ROUNDING)):
        raise StageError(
            f"no format passes, not even {plain['format']}: {broken(plain, config)}. The engine reads this model "
            "differently from its parent: see whether it is converted rightly, or loosen the bounds"
        )
    tried = chain[: chain.index(chosen)]
    for line in lines:
        line["shipped"] = line is chosen
        line["reason"] = why_shipped(chosen, tried, config) if line is chosen else why_not(line, chosen, config)
    return chosen


def why_shipped(chosen: Line, tried: list[Line], config: QuantizeConfig) -> str:
    """Return why a row ships: what it passed, and what the formats before it in the chain failed at."""
    why = broken(chosen, config)
    if why:
        return f"no format is within the bounds, and 16 bit ends the chain: {why}"
    first = "the smallest within the bounds" if config.ship == SMALLEST else "the next of the chain within the bounds"
    if chosen["format"] == config.ship:
        first = "named by the recipe, and within the bounds"
    return first + "".join(f"; {line['format']} did not pass: {broken(line, config)}" for line in tried)


def why_not(line: Line, chosen: Line, config: QuantizeConfig) -> str:
    """Return why a row does not ship."""
    if (line["format"] in WEIGHTS) != (chosen["format"] in WEIGHTS):
        other = "a gguf is for llama.cpp" if line["format"] in WEIGHTS else "a folder is for transformers and vLLM"
        return broken(line, config) or f"{other}; the recipe ships the other kind"
    larger = "larger" if line["bytes"] > chosen["bytes"] else "smaller"
    return broken(line, config) or f"within the bounds, and {larger} than {chosen['format']}"


def broken(line: Line, config: QuantizeConfig) -> str:
    """Return which bound a row breaks; empty when none."""
    if line.get("refused"):
        return str(line["refused"])
    if line["delta"] > config.max_perplexity_increase:
        return f"perplexity {100 * line['delta']:+.3g}%, allowed {100 * config.max_perplexity_increase:+.3g}%"
    if line["top1_agreement"] < config.min_top1_agreement:
        return f"top-1 agreement {line['top1_agreement']:.1%}, wanted {config.min_top1_agreement:.1%}"
    drop = -(line.get("accuracy_delta") or 0)
    if drop > config.max_accuracy_drop and line["accuracy_p"] < SIGNIFICANT:
        lost, allowed = 100 * drop, 100 * config.max_accuracy_drop
        return f"accuracy -{lost:.3g} points (p = {line['accuracy_p']:.2g}), allowed -{allowed:.3g}"
    return ""
