"""A person's own checkpoint, checked before anything is trained on it: it must be convertible and servable."""

import json
from pathlib import Path
from typing import Any, Protocol

from containers.contract import CONVERTIBLE, Model, Speaker, StageError, Tokenizer, combined, files_in
from containers.formats import ChatFormat, identity_of
from containers.pre_tokenizers import split_of
from infra.digests import Digests
from infra.hub import TEXTS, WEIGHTS, downloaded, newest_commit
from infra.pins import is_pin, pinned_artifact
from infra.sources import home, link, missing

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
REMEDY = "use a checkpoint of one of: " + ", ".join(CONVERTIBLE)


class Named(Protocol):
    """How a recipe names a checkpoint."""

    @property
    def path(self) -> str:
        """Folder, owner/name on the hub, or `store:<address>`."""

    @property
    def revision(self) -> str | None:
        """Commit of a hub model."""


def checkpoint_of(named: Named | None) -> Model:
    """Return the Model at a folder, hub name or pin; raises StageError where it could not be trained or served."""
    folder = folder_of(named, (*WEIGHTS, *TEXTS))
    with Digests(home() / "sources" / "digests.sqlite") as digests:
        found = [(f.relative_to(folder).as_posix(), f.stat().st_size, digests.of(f)) for f in files_in(folder)]
    return Model(path=folder.absolute(), digest=combined(found), **identity_of(folder))


def tokenizer_of(named: Named | None) -> Tokenizer:
    """Return a checkpoint's tokenizer alone, no weight downloaded or hashed; raises StageError as `checkpoint_of`."""
    folder = folder_of(named, TEXTS)
    files = {file.name: file.resolve() for pattern in TEXTS for file in sorted(folder.glob(pattern))}
    with Digests(home() / "sources" / "digests.sqlite") as digests:
        digest = combined((name, file.stat().st_size, digests.of(file)) for name, file in sorted(files.items()))
    alone = home() / "sources" / digest[:16]
    link(files, alone)
    return Tokenizer(path=alone, digest=digest, **identity_of(alone))


def context_of(model: Speaker) -> int:
    """Return how many tokens every layer of a checkpoint reads at once; `model` is one, or its tokenizer alone."""
    config: dict[str, Any] = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    return min(int(config["max_position_embeddings"]), int(window or config["max_position_embeddings"]))


def folder_of(named: Named | None, patterns: tuple[str, ...]) -> Path:
    """Return the folder that holds these files of a checkpoint (all of them, where it lies here), checked."""
    if named is None:
        raise StageError(
            "this flow starts from a checkpoint: set `checkpoint: {path: folder or owner/name}` in the recipe"
        )
    place = pinned_artifact(named.path, Model, "checkpoint.path").path if is_pin(named.path) else Path(named.path)
    local = place.is_dir()
    folder = place if local else from_hub(named.path, named.revision, patterns)
    config = checked_config(folder)
    if local or set(WEIGHTS) <= set(patterns):
        check_weights(folder)
    check_tokenizer(folder, config)
    return folder


def from_hub(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """Return files of a hub model at a commit; its architecture is checked before its weights are downloaded."""
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise StageError(f"checkpoint.path: {missing(Path(name).expanduser().absolute())}")
    commit = revision or newest_commit(name, "model")
    checked_config(downloaded(name, commit, home() / "hub", ("config.json",)))
    return downloaded(name, commit, home() / "hub", patterns)


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


def check_weights(folder: Path) -> None:
    """Raise StageError unless all weights are there, as safetensors, with no pickle beside them."""
    pickles = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLES)
    if pickles:
        raise StageError(
            f"{folder / pickles[0]} is a pickle, which runs code when it is read: convert it to safetensors "
            "(`model.save_pretrained(folder)`) and remove it"
        )
    index = folder / "model.safetensors.index.json"
    needed = ["model.safetensors"]
    if index.is_file():
        needed = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    absent = [name for name in needed if not (folder / name).is_file()]
    if absent:
        raise StageError(f"{folder} lacks {absent[0]}: safetensors weights are needed; copy the checkpoint again")


def check_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    """Raise StageError for a tokenizer that llama.cpp cannot be, without a template, or of another model."""
    chat = ChatFormat.load(folder)
    split_of(folder)
    if not chat.template:
        raise StageError(
            f"{folder} has no chat template, so its turns cannot be told apart: put chat_template.jinja beside "
            "tokenizer.json (the instruct version of the same model has one)"
        )
    if chat.end_of_turn is None:
        raise StageError(f"{folder}: the chat template ends no turn with a special token: serving could not stop")
    ids, embeddings = chat.tokenizer.get_vocab_size(), int(config.get("vocab_size", 0))
    if ids > embeddings:
        raise StageError(
            f"{folder}: tokenizer and model do not belong together: {ids} token ids, but {embeddings} embeddings "
            "(config.json: vocab_size)"
        )
