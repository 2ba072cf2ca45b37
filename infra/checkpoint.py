"""A person's own checkpoint, checked before anything is trained on it: it must be convertible and servable."""

from pathlib import Path
from typing import Any, Protocol

from containers.contract import Model, Speaker, StageError, Tokenizer, combined, files_in
from containers.formats import ChatFormat, identity_of
from containers.model_folder import check_vocabulary, check_weights, checked_config, context_in
from containers.pre_tokenizers import split_of
from infra.digests import Digests
from infra.hub import TEXTS, WEIGHTS, downloaded, newest_commit
from infra.pins import is_pin, pinned_artifact
from infra.sources import home, link, missing


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
    return context_in(checked_config(model.path))


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
    check_vocabulary(folder, config)
