"""Fold an adapter into the weights that it was trained on, and prove that nothing was lost.

A QLoRA adapter was trained beside 4-bit weights: it corrects their rounding too. So the 4-bit weights are made again,
dequantized, and the product added to those; added to the original weights it would give another model.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import BitsAndBytesConfig

from containers.adapters import add_products
from containers.contract import Adapter, Model, StageError
from containers.formats import ChatFormat, identity_of
from containers.merge.contract import MergeConfig, MergeInputs, MergeOutputs
from containers.model_folder import check_identity, refuse_pickles
from containers.models import TRAINED_ON, be_deterministic, device_for, load_model, save_model
from containers.out import Out


def run(config: MergeConfig, inputs: MergeInputs, out: Out) -> MergeOutputs:
    """Merge, save, read back and compare; raises StageError for the wrong base, ArithmeticError for a failed proof."""
    torch.set_num_threads(config.threads)
    device = device_for(config.device)
    be_deterministic(device)
    trained_on = check_pair(inputs.base, inputs.adapter)
    rows = rendered(config.prompts, inputs.base.path)

    quantization = trained_on["quantization"]
    quantized = BitsAndBytesConfig(**quantization) if quantization else None
    taught = load_model(inputs.base, trained_on["precision"], quantized, device)
    before = logits_of(taught, rows)
    taught = PeftModel.from_pretrained(taught, inputs.adapter.path).eval()
    wanted = logits_of(taught, rows)
    out.progress(1, 3, "models")

    model = load_model(inputs.base, "fp32")
    add_products(taught, model)
    del taught
    folder = out.artifact("model")
    save_model(model, folder, inputs.base.path)
    out.progress(2, 3, "models")

    found = logits_of(load_model(folder, "fp32", device=device), rows)
    prove(config, out, {"adapter": difference(wanted, found), "base": difference(before, found)}, quantization)
    out.progress(3, 3, "models")
    return MergeOutputs(model=Model.of(folder, **identity_of(folder)))


def check_pair(base: Model, adapter: Adapter) -> dict[str, Any]:
    """Return how the base was loaded when the adapter was trained; raises StageError when this is not that base."""
    check_identity(adapter)
    refuse_pickles(adapter.path)
    file = adapter.path / TRAINED_ON
    if not file.is_file():
        raise StageError(f"{adapter.path} holds no {TRAINED_ON}: it was not made by the sft stage")
    trained_on: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if {adapter.base, trained_on["base"]} != {base.digest}:
        raise StageError(
            f"the adapter was trained on base {adapter.base[:12]}, and this base is {base.digest[:12]}: "
            "merge it into the model that its sft stage took"
        )
    return trained_on


def rendered(prompts: tuple[str, ...], folder: Path) -> list[list[int]]:
    """Return each prompt as the chat that opens an answer."""
    chat = ChatFormat.load(folder)
    return [chat.render([{"role": "user", "content": prompt}], open_turn=True).ids for prompt in prompts]


@torch.no_grad()
def logits_of(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """Return the logits (tokens of all rows, vocabulary) in fp32 on the CPU."""
    device = next(model.parameters()).device
    return torch.cat([model(torch.tensor([row], device=device)).logits[0].float().cpu() for row in rows])


def difference(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Return the largest difference of two sets of logits in standard deviations of the first."""
    return float((wanted - found).abs().max() / wanted.std())


def prove(config: MergeConfig, out: Out, far: dict[str, float], quantization: dict[str, Any] | None) -> None:
    """Record how far the merged model is from the adapter and from the base; raise when too far from the adapter."""
    out.record(max_logit_difference=far["adapter"], base_logit_difference=far["base"])
    out.write_card(
        max_logit_difference=far["adapter"],
        base_logit_difference=far["base"],
        tolerance=config.tolerance,
        prompts=list(config.prompts),
        merged_into="4-bit weights, dequantized" if quantization else "the weights of the base",
    )
    if not far["adapter"] <= config.tolerance:
        raise ArithmeticError(
            f"the merged model is not the adapter: logits differ by {far['adapter']:.4f} standard deviations, "
            f"tolerance {config.tolerance}; if the model is stored in 16 bit and very deep, raise merge.tolerance"
        )
    out.say(f"merged; logits agree within {far['adapter']:.4f} (the base is {far['base']:.2f} away)")
