"""The gate: a format ships when the engine that will serve it reads it within the recipe's bounds.

Formats are tried in the order of the recipe's chain, 16 bit last; what does not pass says why.
"""

from typing import Any

from containers.contract import StageError
from containers.mcnemar import SIGNIFICANT
from containers.quantize.contract import QuantizeConfig
from containers.quantize.gguf_types import WEIGHTS

Line = dict[str, Any]
LAST = "f16"
"""Ends every chain: nothing else is nearer to the parent."""
ROUNDING = 0.001
"""What 16 bits may cost in perplexity however tight the recipe's bound is, relative."""


def chain_of(lines: list[Line], config: QuantizeConfig) -> list[Line]:
    """Return the rows of formats that can be served, in the order in which they are tried."""
    served = {line["format"]: line for line in lines if line["format"] in WEIGHTS}
    order = config.chain or sorted(served, key=lambda name: int(served[name]["bytes"]))
    return [served[name] for name in dict.fromkeys((*order, LAST)) if name in served]


def passing(lines: list[Line], config: QuantizeConfig) -> Line | None:
    """Return the first row of the chain that passes the gate, None where none does."""
    return next((line for line in chain_of(lines, config) if not broken(line, config)), None)


def choose(lines: list[Line], config: QuantizeConfig) -> Line:
    """Return the row that ships; every row gets `shipped` and `reason`.

    The first of the chain that passes, else f16 for want of a better. Raises StageError where f16 itself is far from
    the parent: then the conversion is wrong, not the rounding.
    """
    chain = chain_of(lines, config)
    plain = chain[-1]
    chosen = passing(lines, config) or plain
    if chosen is plain and (plain.get("refused") or plain["delta"] > max(config.max_perplexity_increase, ROUNDING)):
        raise StageError(
            f"no format passes, not even {LAST}: {broken(plain, config)}. llama.cpp reads this model differently from "
            "transformers: see whether its architecture and tokenizer are converted rightly, or loosen the bounds"
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
    first = "the first of the recipe's chain" if config.chain else "the smallest"
    failed = "".join(f"; {line['format']} did not pass: {broken(line, config)}" for line in tried)
    return f"{first} within the bounds{failed}"


def why_not(line: Line, chosen: Line, config: QuantizeConfig) -> str:
    """Return why a row does not ship."""
    if line["format"] not in WEIGHTS:
        return broken(line, config) or "for transformers: the bundle's engine reads gguf"
    if config.chain and line["format"] not in config.chain:
        return broken(line, config) or "not in the recipe's chain"
    after = f"after {chosen['format']} in the chain" if config.chain else f"larger than {chosen['format']}"
    return broken(line, config) or f"within the bounds, and {after}"


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
