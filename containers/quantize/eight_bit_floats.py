"""8-bit floats (e4m3) in compressed-tensors' layout: a scale for each row of weights, one for each token that comes in.

GPUs of compute capability 8.9 or more multiply them as they are. Nothing is learnt: three bits of mantissa lose little
(Micikevicius et al. 2022, arXiv:2209.05433).
"""

from pathlib import Path
from typing import Any

import torch

from containers.contract import Model
from containers.models import load_model

SCHEME = "FP8_DYNAMIC"
"""Its name in compressed-tensors."""


def write_floats(source: Model, folder: Path) -> None:
    """Write `source` to `folder` with its linear layers in 8-bit floats, the output layer and the rest in 16 bit."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme

    model = load_model(source, "bf16", None, torch.device("cpu"))
    groups = {"group_0": preset_name_to_scheme(SCHEME, ["Linear"])}
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=["lm_head"]), show_progress=False)
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            module.weight_scale.data.copy_(scales_of(module))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    compressor.update_config(str(folder))


def scales_of(module: Any) -> torch.Tensor:
    """Return the scale of each row (out, 1): the largest weight becomes the largest number."""
    from compressed_tensors.quantization.utils import calculate_qparams

    low, high = module.weight.aminmax(dim=1, keepdim=True)
    scales: torch.Tensor = calculate_qparams(low, high, module.quantization_scheme.weights)[0]
    return scales
