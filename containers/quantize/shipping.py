"""Which format ships, and why the others do not."""

from typing import Any

from containers.quantize.contract import QuantizeConfig
from containers.quantize.gguf_writer import WEIGHTS

Line = dict[str, Any]


def choose(lines: list[Line], config: QuantizeConfig) -> Line:
    """Return the row that ships; every row gets `shipped` and `reason`.

    The format that the recipe names, else the smallest within its bounds, else f16, else the least changed.
    """
    served = sorted((line for line in lines if line["format"] in WEIGHTS), key=lambda line: line["bytes"])
    within = [line for line in served if not broken(line, config)]
    named = [line for line in lines if line["format"] == config.ship]
    plain = [line for line in served if line["format"] == "f16"]
    chosen = next(iter([*named, *within, *plain]), None) or min(served, key=lambda line: line["perplexity"])
    for line in lines:
        line["shipped"] = line is chosen
        line["reason"] = reason_of(line, chosen, config)
    return chosen


def reason_of(line: Line, chosen: Line, config: QuantizeConfig) -> str:
    """Return why a row ships or not."""
    why = broken(line, config)
    if line is not chosen:
        bigger = f"within the bounds, and larger than {chosen['format']}"
        other = bigger if line["bytes"] > chosen["bytes"] else f"the recipe ships {chosen['format']}"
        return why or (
            "for transformers: only a gguf is picked by its size" if line["format"] not in WEIGHTS else other
        )
    if config.ship != "smallest_within":
        return "named by the recipe" + (f", although {why}" if why else "")
    return f"no format is within the bounds: {why}" if why else "the smallest within the bounds"


def broken(line: Line, config: QuantizeConfig) -> str:
    """Return which bound a row breaks; empty when none."""
    if line["delta"] > config.max_perplexity_increase:
        return f"perplexity {line['delta']:+.1%}, allowed {config.max_perplexity_increase:+.1%}"
    if line["top1_agreement"] < config.min_top1_agreement:
        return f"top-1 agreement {line['top1_agreement']:.1%}, wanted {config.min_top1_agreement:.1%}"
    return ""
