"""What a bundle says of itself (manifest.json), and the checks that its files are the ones that were built."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from containers.contract import Frozen, StageError, digest_of_file, files_in
from containers.formats import ChatFormat, identity_of
from containers.signatures import Trust, verify

MANIFEST, MODEL, ADAPTERS, PROVENANCE = "manifest.json", "model", "adapters", "provenance.json"


class Variant(Frozen):
    """One of the models of a bundle: its weights, or those with adapters beside them."""

    adapters: tuple[str, ...] = ()
    """LoRA adapters that are added up on the weights, each in `adapters/<name>.gguf`."""
    provenance: str = PROVENANCE
    """The file that says what this model was made of."""
    reference: str = MODEL
    """The folder of its 16-bit model's own answers (reference.json)."""


class Manifest(Frozen):
    """manifest.json: the identity of the model, and size and sha256 of every file beside the manifest."""

    name: str
    """The model's name in the API."""
    variants: dict[str, Variant] = Field(default_factory=dict)
    """Where several models share the weights: name in the API -> what it is, `name` among them."""
    version: str
    """First 12 hex digits of the digest of everything in the bundle."""
    description: str
    format: str
    """How the weights are stored: f16, q8_0, ..."""
    context: int
    """Tokens of context that the model was trained on."""
    tokenizer: str
    template: str
    stop_ids: tuple[int, ...]
    examples: tuple[str, ...] = ()
    """Questions that the chat page offers."""
    scores: tuple[dict[str, Any], ...] = ()
    """What was measured: model, measure, value, interval, n; texts, as the model card has them."""
    files: dict[str, tuple[int, str]] = Field(default_factory=dict)
    """Path -> (bytes, sha256)."""

    @property
    def digest(self) -> str:
        """sha256 of all of the above but the version."""
        values = json.dumps(self.model_dump(mode="json", exclude={"version"}), sort_keys=True)
        return hashlib.sha256(values.encode()).hexdigest()

    @property
    def models(self) -> dict[str, Variant]:
        """Every model by its name in the API, the one that the bundle is called by first."""
        first = self.variants.get(self.name, Variant())
        return {self.name: first, **self.variants}


class Served:
    """The unpacked bundle at `folder`; `Served.open` refuses one that differs from its manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Take a folder that has been checked; see `open`."""
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path, trust: Trust | None = None) -> "Served":
        """Return the bundle in `folder`, src/ of a Bento; raises StageError when a file is missing, added or changed.

        With `trust` its key must have signed the whole Bento. Nothing of the model is loaded before.
        """
        if trust:
            verify(folder.parent, trust)
        file = folder / MANIFEST
        if not file.is_file():
            raise StageError(f"{folder} holds no {MANIFEST}: serve a folder that the package stage made")
        served = cls(folder, Manifest.model_validate_json(file.read_text(encoding="utf-8")))
        served.check_identity()
        if trust is None:
            served.check_files()
        return served

    @property
    def model(self) -> Path:
        """The folder of the weights, their tokenizer beside them."""
        return self.folder / MODEL

    @cached_property
    def gguf(self) -> Path | None:
        """The one gguf file; None where the weights are safetensors."""
        return next(self.model.glob("*.gguf"), None)

    @property
    def adapters(self) -> dict[str, Path]:
        """The gguf of each adapter that is kept beside the weights, by its name, sorted."""
        return {file.stem: file for file in sorted((self.folder / ADAPTERS).glob("*.gguf"))}

    @cached_property
    def chat(self) -> ChatFormat:
        """The tokenizer and chat template that were trained and measured."""
        return ChatFormat.load(self.model)

    def check_identity(self) -> None:
        """Refuse a tokenizer, template or stop ids other than those that the weights were trained with."""
        found = identity_of(self.model)
        for part in ("template", "tokenizer", "stop_ids"):
            recorded = getattr(self.manifest, part)
            if found[part] != recorded:
                raise StageError(
                    f"{self.model}: the {part} is not the one this model was trained with "
                    f"(found {shown(found[part])}, recorded {shown(recorded)}): build the bundle again"
                )

    def check_files(self) -> None:
        """Refuse files whose bytes changed, and files that nobody recorded (byte code aside)."""
        there = {f.relative_to(self.folder).as_posix(): f for f in files_in(self.folder) if f.suffix != ".pyc"}
        there.pop(MANIFEST)
        recorded = self.manifest.files
        if strange := sorted(set(there) ^ set(recorded)):
            state = "was added" if strange[0] in there else "is missing"
            raise StageError(f"{self.folder / strange[0]} {state} since the bundle was built: build it again")
        for name, (size, digest) in recorded.items():
            if there[name].stat().st_size != size or digest_of_file(there[name]) != digest:
                raise StageError(f"{there[name]} has changed since the bundle was built: build it again")


def inventory(folder: Path) -> dict[str, tuple[int, str]]:
    """Return path -> (bytes, sha256) of every file in `folder` but the manifest."""
    files = {f.relative_to(folder).as_posix(): f for f in files_in(folder)}
    return {name: (f.stat().st_size, digest_of_file(f)) for name, f in files.items() if name != MANIFEST}


def shown(identity: object) -> str:
    """Return a digest shortened for people, or the ids as they are."""
    return identity[:12] if isinstance(identity, str) else json.dumps(identity)
