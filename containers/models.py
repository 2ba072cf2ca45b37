"""How a model is loaded and saved: in which precision, on which device, its tokenizer beside it."""

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from containers.contract import Speaker, StageError
from containers.formats import ChatFormat
from containers.model_folder import check_model

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
TRAINED_ON = "trained_on.json"
"""Beside an adapter: its base's digest, the precision that was loaded in, and how it was quantized (or null)."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device_for(wanted: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`; raises StageError when CUDA is asked for and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise StageError("device: cuda, but no CUDA device is visible here; use `device: auto` or `cpu`")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def be_deterministic(device: torch.device) -> None:
    """Have the same bits come out every time on a CPU; a GPU is left fast."""
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # looks for bugs, and costs a twentieth of a step


def working_precision(wanted: str, device: torch.device) -> tuple[str, str | None]:
    """Return (precision that `device` can work in, one line to say when it is not the one wanted).

    bf16 without bf16 instructions is emulated, some twenty times slower than fp32; fp16 training needs a GPU.
    """
    if device.type == "cuda":
        if wanted == "bf16" and not torch.cuda.is_bf16_supported():
            return "fp16", "this GPU has no bf16: training in fp16 with loss scaling"
        return wanted, None
    if wanted == "fp16":
        wanted, why = ("bf16" if has_bf16_instructions() else "fp32"), "fp16 training needs a GPU"
        return wanted, f"{why}: on this CPU it means {wanted}"
    if wanted == "bf16" and not has_bf16_instructions():
        return "fp32", "this CPU has no bf16 instructions: bf16 means fp32 here"
    return wanted, None


def has_bf16_instructions() -> bool:
    """Tell whether the CPU multiplies bf16 itself (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def load_model(
    source: Speaker | Path,
    precision: str,
    quantized: BitsAndBytesConfig | None = None,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """Return the causal language model in eval mode with weights in `precision` (fp32, bf16 or fp16) on `device`.

    `quantized` loads linear layers as bitsandbytes does, and keeps them so. Raises StageError as `check_model` does.
    """
    check_model(source)
    folder = source if isinstance(source, Path) else source.path
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=DTYPES[precision],
        quantization_config=quantized,
        device_map={"": device} if quantized else None,
        use_safetensors=True,
        local_files_only=True,
    )
    model = keep_four_bits(model) if quantized else model.to(device)
    return model.eval()


def keep_four_bits(model: PreTrainedModel) -> PreTrainedModel:
    """Return `model`, its 4-bit weights kept as they were loaded.

    On a CPU with AVX512-BF16 the first evaluation would round the scales and lay the weights out anew, under the feet
    of training and of merge.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def save_model(model: PreTrainedModel, folder: Path, beside: Path) -> None:
    """Write weights, config and generation config to `folder`, and the tokenizer that lies in `beside`.

    Weights are stored in the precision that `beside` stores them in, and generation ends at every stop id. No path of
    this machine is written.
    """
    chat = ChatFormat.load(beside)
    named = model.generation_config.eos_token_id
    ends = set(chat.stop_ids) | ({named} if isinstance(named, int) else set(named or ()))
    model.generation_config.eos_token_id = sorted(ends)
    stored = stored_dtype(beside)
    model.to(stored)
    model.config.dtype = stored
    model.config._name_or_path = ""
    model.config.use_cache = True
    model.save_pretrained(folder)
    copy_tokenizer(beside, folder)


def stored_dtype(folder: Path) -> torch.dtype:
    """Return the precision that a model folder's config names (float32 where it names none)."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return getattr(torch, name)  # type: ignore[no-any-return]


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer and chat template files as they are, so that their digests stay."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
