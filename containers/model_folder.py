"""What a model folder must be before anything reads its weights: convertible, servable, whole, and no pickle in it.

No torch here: the host asks the same of a person's checkpoint before a run begins.
"""

import json
from pathlib import Path
from typing import Any

from containers.contract import CONVERTIBLE, Speaker, StageError
from containers.formats import ChatFormat, identity_of

PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
REMEDY = "use a checkpoint of one of: " + ", ".join(CONVERTIBLE)


def check_model(source: Speaker | Path) -> dict[str, Any]:
    """Return config.json of a model folder that may be loaded; raises StageError.

    Refused: what `checked_config` and `check_weights` refuse, a tokenizer, template or stop id that is not the one
    recorded with the artifact, and a tokenizer with more ids than the model has embeddings.
    """
    folder = source if isinstance(source, Path) else source.path
    config = checked_config(folder)
    check_weights(folder)
    if isinstance(source, Speaker):
        check_identity(source)
    check_vocabulary(folder, config)
    return config


def checked_config(folder: Path) -> dict[str, Any]:
    """Return config.json; raises StageError for an architecture that we cannot convert and serve."""
    file = folder / "config.json"
    if not file.is_file():
        raise StageError(f"{folder} holds no config.json: a Hugging Face model folder is needed")
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(f"{file}: not JSON ({error}): copy the checkpoint again") from error
    names = config.get("architectures") or ["none"]
    if names[0] not in CONVERTIBLE:
        raise StageError(f"{file}: architecture {names[0]} cannot be converted and served: {REMEDY}")
    if not config.get("max_position_embeddings"):
        raise StageError(f"{file} has no max_position_embeddings, the tokens that the model reads at once: add it")
    if config.get("quantization_config"):
        raise StageError(f"{file}: the weights are already quantized: start from the 16-bit checkpoint")
    return config


def context_in(config: dict[str, Any]) -> int:
    """Return how many tokens every layer of a model sees: its positions, or less where attention has a window."""
    positions = int(config["max_position_embeddings"])
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    return min(positions, int(window or positions))


def check_weights(folder: Path) -> None:
    """Raise StageError unless all weights are there, as safetensors, with no pickle beside them."""
    refuse_pickles(folder)
    index = folder / "model.safetensors.index.json"
    needed = ["model.safetensors"]
    if index.is_file():
        needed = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    absent = [name for name in needed if not (folder / name).is_file()]
    if absent:
        raise StageError(f"{folder} lacks {absent[0]}: safetensors weights are needed; copy the checkpoint again")


def refuse_pickles(folder: Path) -> None:
    """Raise StageError where any file below `folder` is a pickle by its name, whether or not it would be read."""
    pickles = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICKLES)
    if pickles:
        raise StageError(
            f"{pickles[0]} is a pickle, which runs code when it is read: convert it to safetensors "
            "(`model.save_pretrained(folder)`) and remove it"
        )


def check_identity(source: Speaker) -> None:
    """Raise StageError when what lies beside the weights is not what the artifact says."""
    found = identity_of(source.path)
    for name, meaning in {"tokenizer": "tokenizer", "template": "chat template", "stop_ids": "stop ids"}.items():
        if found[name] != getattr(source, name):
            raise StageError(
                f"{source.path}: the {meaning} is not the one that belongs to these weights "
                f"({found[name]} here, {getattr(source, name)} recorded); restore the files or make the model again"
            )


def check_vocabulary(folder: Path, config: dict[str, Any]) -> None:
    """Raise StageError when the tokenizer knows ids that the embedding has no row for."""
    size = ChatFormat.load(folder).tokenizer.get_vocab_size()
    if size > int(config.get("vocab_size", 0)):
        raise StageError(
            f"{folder}: tokenizer and model do not belong together: the tokenizer has {size} ids and the model "
            f"{config.get('vocab_size', 0)} embeddings (config.json: vocab_size)"
        )
