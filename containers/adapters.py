"""Adapters: what is trained beside frozen weights, and how it is saved so that two machines write the same bytes."""

import json
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.lora import LoraLayer
from transformers import BitsAndBytesConfig

from containers.contract import Adapter, Model, StageError
from containers.formats import identity_of
from containers.models import DTYPES, TRAINED_ON, copy_tokenizer
from containers.weights import LowRank


def quantization_of(double: bool, compute_precision: str) -> dict[str, Any]:
    """Return how a base is quantized to 4 bits, in plain values that `merge` reads back."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": double,
        "bnb_4bit_compute_dtype": str(DTYPES[compute_precision]).removeprefix("torch."),
    }


def bits_and_bytes(quantization: dict[str, Any] | None) -> BitsAndBytesConfig | None:
    """Return the loader's form of `quantization_of`, None for weights that are not quantized."""
    return BitsAndBytesConfig(**quantization) if quantization else None


def add_adapter(
    model: Any, config: LowRank, seed: int, *, gradient_checkpointing: bool = False, task: str = "CAUSAL_LM"
) -> PeftModel:
    """Return `model` frozen, with a fresh fp32 adapter; raises StageError when no layer has a name asked for.

    `task` is PEFT's; the head of a SEQ_CLS model is trained whole.
    """
    if getattr(model, "is_quantized", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=gradient_checkpointing)
    targets = config.target_modules if isinstance(config.target_modules, str) else list(config.target_modules)
    lora = LoraConfig(
        task_type=task, r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets
    )
    torch.manual_seed(seed)
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        linear = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
        raise StageError(f"target_modules: {error}; linear layers of this model: {', '.join(linear)}") from error


@torch.no_grad()
def add_products(taught: PeftModel, model: torch.nn.Module) -> None:
    """Give `model` (fp32) the weights that `taught` computes with: dequantized where 4-bit, products added."""
    plain = dict(model.named_modules())
    for name, layer in taught.get_base_model().named_modules():
        inner = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
        if name.endswith(".base_layer") or not hasattr(inner, "weight") or inner.weight is None:
            continue
        if isinstance(inner, Linear4bit):
            weight = dequantize_4bit(inner.weight.data, inner.weight.quant_state).float()
        else:
            weight = inner.weight.float()
        if isinstance(layer, LoraLayer):
            weight = weight + layer.get_delta_weight("default").float()
        if name in plain:
            plain[name].weight.copy_(weight)


def save_adapter(model: PeftModel, folder: Path, base: Model, loaded_as: dict[str, Any]) -> Adapter:
    """Write the adapter, its base's tokenizer and how the base was loaded; no path, order or pickle in it."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = None
    if isinstance(settings.get("target_modules"), list):
        settings["target_modules"] = sorted(settings["target_modules"])
    file.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    record = {"base": base.digest, **loaded_as}
    (folder / TRAINED_ON).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    copy_tokenizer(base.path, folder)
    return Adapter.of(folder, base=base.digest, **identity_of(folder))
