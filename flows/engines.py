"""Which engine serves what a recipe ships: the refusal of one that could not, before anything is trained."""

from containers.package.contract import PackageConfig
from containers.quantize.contract import QuantizeConfig
from containers.serve.contract import ServeConfig
from containers.sft.contract import SFTConfig
from flows.steps import Step


def unservable(quantize: QuantizeConfig, package: PackageConfig, serve: ServeConfig) -> str:
    """Return why the engine could not read what ships, and what to do; empty where it can."""
    engine, ship = serve.engine, quantize.ship
    if package.adapters == "unmerged" and engine not in ("auto", "llama.cpp"):
        return (
            f"serve.engine {engine} cannot serve package.adapters unmerged (llama.cpp alone can here): "
            "set package.adapters to merged, or serve.engine to llama.cpp"
        )
    if package.adapters == "unmerged" and not quantize.ships_gguf:
        return (
            f"package.adapters unmerged needs a gguf, and quantize.ship is {ship}: ship a gguf, or merge the adapters"
        )
    if engine != "auto" and (engine == "llama.cpp") != quantize.ships_gguf:
        return f"serve.engine {engine} cannot read quantize.ship {ship} (gguf: llama.cpp; bf16: others)"
    return ""


def unkeepable(package: PackageConfig, sft: SFTConfig, align: tuple[Step, ...]) -> str:
    """Return which stage makes no adapter that fits a 16-bit base, and what to do; empty where all do.

    A step beside the line may train all weights: it is measured, and stays out of the bundle.
    """
    if package.adapters == "merged":
        return ""
    methods = {"sft.method": str(sft.method)}
    for number, step in enumerate(align):
        weights = step.weights
        if weights and not (step.beside and weights.method == "full"):
            methods[f"align.{number}.{step.word}.weights.method"] = weights.method
    wrong = next((place for place, method in methods.items() if method != "lora"), None)
    if wrong is None:
        return ""
    return f"package.adapters unmerged keeps lora adapters, and {wrong} is {methods[wrong]}: set it to lora, or merge"
