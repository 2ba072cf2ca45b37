"""Adapters that are kept beside their base: the folder that `convert` writes, `package` carries and llama.cpp loads.

    <adapter>.gguf            a LoRA adapter in llama.cpp's format, one for each
    <model>/reference.json    what the base with that model's adapters says in transformers (containers/reference.py)
    <model>/made_of.json      digests of base and adapters: the provenance of that model
    models.json               which models there are, and which adapters each of them adds to the base

A model's name is the one that it has in the run: chat, dpo, ...
"""

from pathlib import Path
from typing import Literal, NamedTuple

from containers.contract import Adapter, Artifact, Frozen, Model

MODELS, MADE_OF = "models.json", "made_of.json"


class Unmerged(Artifact):
    """The folder; of use with its base alone."""

    kind: Literal["unmerged"] = "unmerged"
    base: str
    """Digest of the base model."""
    whole: str
    """Digest of the whole model that the last of these models is in one piece: the one that the run measured."""


class Lineup(Frozen):
    """models.json."""

    base: str
    """Digest of the base model."""
    models: dict[str, tuple[str, ...]]
    """Name of a model in the run -> the adapters that are added up on the base."""
    last: str
    """The model that the run ends with."""

    def write(self, folder: Path) -> None:
        """Write it into the folder."""
        (folder / MODELS).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Lineup":
        """Return what the folder holds."""
        return cls.model_validate_json((folder / MODELS).read_text(encoding="utf-8"))


class Taught(NamedTuple):
    """What a run's adapters make of its base."""

    adapters: dict[str, Adapter]
    models: dict[str, tuple[str, ...]]
    """As in Lineup."""
    last: str
    """As in Lineup."""
    whole: Model
    """The last model in one piece."""
