"""Checkpoints of a run in work/, and the finished model folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from transformers import GenerationConfig, PreTrainedModel

from containers.checkpoints import commit, newest
from containers.contract import StageError, Tokenizer
from containers.formats import ChatFormat
from containers.out import Out
from containers.pretrain.engine import Engine

KEPT = 2
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def save_checkpoint(engine: Engine, step: int, history: dict[str, Any], out: Out) -> None:
    """Commit weights, optimizer, scaler, random state and history after `step` steps; keep the last two."""
    folder = out.work / f"checkpoint-{step:08d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save_model(engine.model, str(folder / "model.safetensors"))
    torch.save(state_of(engine), folder / "state.pt")
    (folder / "history.json").write_text(json.dumps(history), encoding="utf-8")
    commit(folder, step)
    for old in sorted(out.work.glob("checkpoint-????????"))[:-KEPT]:
        shutil.rmtree(old)


def state_of(engine: Engine) -> dict[str, Any]:
    """Return what the next step depends on beside the weights and the step number."""
    gpu = torch.cuda.get_rng_state() if engine.device.type == "cuda" else torch.empty(0)
    return {
        "optimizer": engine.optimizer.state_dict(),
        "scaler": engine.scaler.state_dict(),
        "random": torch.get_rng_state(),
        "random_gpu": gpu,
    }


def resume(engine: Engine, plan: dict[str, Any], out: Out) -> tuple[int, dict[str, Any]]:
    """Return (steps done, history) of the newest committed checkpoint, loaded into `engine`; (0, fresh) if none.

    Raises StageError when the checkpoint belongs to another plan.
    """
    fresh = {"plan": plan, "curve": [], "bits_per_byte": [], "answers": []}
    found = newest(out.work)
    if found is None:
        return 0, fresh
    step, folder = found
    history: dict[str, Any] = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    if differing := [name for name in plan if history["plan"].get(name) != plan[name]]:
        raise StageError(f"the checkpoint at step {step} was made with another {', '.join(differing)}: remove work/")
    load_model(engine.model, str(folder / "model.safetensors"), device=str(engine.device))
    state = torch.load(folder / "state.pt", map_location=engine.device, weights_only=True)
    engine.optimizer.load_state_dict(state["optimizer"])
    engine.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"].cpu())
    if engine.device.type == "cuda":
        torch.cuda.set_rng_state(state["random_gpu"].cpu())
    out.say(f"resumed after step {step:,}")
    return step, history


def save_model_folder(model: PreTrainedModel, tokenizer: Tokenizer, dtype: str, folder: Path) -> None:
    """Write the Hugging Face folder: weights, config, generation config, tokenizer and template."""
    chat = ChatFormat.load(tokenizer.path)
    model.generation_config = GenerationConfig(
        eos_token_id=list(chat.stop_ids), pad_token_id=chat.token_id("pad_token"), do_sample=False
    )
    model.to(DTYPES[dtype]).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    for name in TOKENIZER_FILES:
        if (tokenizer.path / name).is_file():
            shutil.copyfile(tokenizer.path / name, folder / name)
    for file in (folder / "config.json", folder / "generation_config.json"):
        values = json.loads(file.read_text(encoding="utf-8"))
        values.pop("_name_or_path", None)
        file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
