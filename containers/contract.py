"""What a task and its container agree on: configs, artifacts, a stage, a request, a result.

Pydantic and the standard library only, so that flows, tasks and infra import it in a blink and without torch.
The whole interface between the two sides is one folder:

    request.json     config + input artifacts      the host writes it, the stage only reads
    inputs/<name>/   what to do it to              read-only
    outputs/<name>/  what came of it               the stage writes
    events.jsonl     metrics, progress, log lines  appended as they happen
    work/            checkpoints, caches, scratch  survives a crash
    result.json      outputs, metrics, environment written last; its presence is success
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """A value: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    def revise(self, **changes: Any) -> Self:
        """Return a validated copy with `changes` applied (`model_copy(update=)` does not validate)."""
        return type(self).model_validate({**dict(self), **changes})


class Config(Frozen):
    """What a person chooses for a stage. Each field documents itself in the string below it."""


def aside(default: Any, **constraints: Any) -> Any:
    """Declare a config field that cannot change the result (logging, workers): outside the fingerprint."""
    return Field(default, json_schema_extra={"affects_result": False}, **constraints)


class StageError(Exception):
    """A failure that a person can mend: the message says what, where (file:line) and what to do."""


class Unhealthy(Exception):
    """Training by reward was stopped for a bound of its health guard; the message says which, and what to change."""


class Artifact(Frozen):
    """A folder (or file) in the store, named by the digest of its bytes."""

    path: Path
    """Where it lies now; never part of a fingerprint."""
    digest: str = ""
    """sha256 over the sorted (path, size, sha256) of every file."""

    @classmethod
    def of(cls, path: Path, **fields: Any) -> Self:
        """Return the artifact that now lies at `path`, digest computed from its bytes."""
        return cls(path=path, digest=digest_of(path), **fields)


class Files(Artifact):
    """A person's own files, resolved from a path, a folder or a glob; staged into one folder."""

    kind: Literal["files"] = "files"


Role = Literal["corpus", "instructions", "preferences", "problems"]
Split = Literal["train", "validation", "test"]
CONVERTIBLE = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM")
"""Architectures (config.json) that can be trained, converted to gguf and served; others are refused at the start."""


class Dataset(Artifact):
    """Parquet shards under `<split>/`, in the one schema of its role (`containers.formats`)."""

    kind: Literal["dataset"] = "dataset"
    role: Role
    rows: dict[str, int]
    """Rows per split."""


class Speaker(Artifact):
    """Anything that turns tokens into text; what must travel with its weights, refused at load on mismatch."""

    tokenizer: str
    """Digest of the tokenizer."""
    template: str
    """Digest of the chat template."""
    stop_ids: tuple[int, ...]
    """Token ids that end a turn or a document."""


class Tokenizer(Speaker):
    """A Hugging Face tokenizer folder: tokenizer.json, tokenizer_config.json, chat_template.jinja."""

    kind: Literal["tokenizer"] = "tokenizer"


class Model(Speaker):
    """A Hugging Face model folder: 16- or 32-bit safetensors, config and tokenizer together."""

    kind: Literal["model"] = "model"


class Adapter(Speaker):
    """A PEFT adapter folder; of use only with the base that it was trained on, so `merge` comes next."""

    kind: Literal["adapter"] = "adapter"
    base: str
    """Digest of the base model."""


class RewardModel(Speaker):
    """A Hugging Face sequence classifier with one label: how good the last answer of a chat is, as one number."""

    kind: Literal["reward"] = "reward"


class Candidates(Artifact):
    """`candidates.jsonl`: several answers to each prompt, for people to rank, with who made them and how."""

    kind: Literal["candidates"] = "candidates"


class Quantized(Speaker):
    """The model in a format that an engine serves, tokenizer beside it."""

    kind: Literal["quantized"] = "quantized"
    format: str
    parent: str
    """Digest of the 16-bit model that it was made from."""


class Scores(Artifact):
    """`scores.json` (measures with intervals) and `items.parquet` (every answer) of one model."""

    kind: Literal["scores"] = "scores"
    model: str
    """The name of the model in the run: base, chat, ..."""


class Bundle(Artifact):
    """A Bento: model, service, API, page, card and provenance."""

    kind: Literal["bundle"] = "bundle"
    version: str


class Endpoint(Frozen):
    """A served bundle."""

    kind: Literal["endpoint"] = "endpoint"
    url: str
    model: str
    bundle: str
    """Digest of the bundle that answers."""


C = TypeVar("C", bound=Config)
I = TypeVar("I", bound=Frozen)  # noqa: E741 - C, I, O: config, inputs, outputs
O = TypeVar("O", bound=Frozen)  # noqa: E741


@dataclass(frozen=True)
class Stage(Generic[C, I, O]):
    """One word, what it takes and what it makes."""

    word: str
    config: type[C]
    inputs: type[I]
    outputs: type[O]
    fetches: bool = False
    """Needs a network (hub names); all other stages run without one."""
    secrets: tuple[str, ...] = ()
    """Environment variables that are passed through, for example HF_TOKEN."""
    preload: tuple[str, ...] = ()
    """Third-party modules that the fork server imports ahead of time."""
    stall_seconds: int = 600
    """A silence longer than this stops the stage with a stack dump."""


class Request(Frozen):
    """request.json: what the host asks of a stage."""

    stage: str
    label: str
    fingerprint: str
    code: str
    """Digest of the stage's code; the child hashes what it imported and refuses a mismatch."""
    config: dict[str, Any]
    inputs: dict[str, Any]


class Result(Frozen):
    """result.json: what came of it. Artifact paths are relative to the stage folder."""

    stage: str
    fingerprint: str
    outputs: dict[str, Any]
    metrics: dict[str, float]
    seconds: float
    environment: dict[str, str]


def digest_of(path: Path) -> str:
    """Return the sha256 of a file or folder over its sorted (relative path, size, sha256 of each file)."""
    return combined(
        (file.relative_to(path).as_posix() if file != path else "", file.stat().st_size, digest_of_file(file))
        for file in files_in(path)
    )


def combined(files: Iterable[tuple[str, int, str]]) -> str:
    """Return the digest of a folder from its sorted (relative path, size, sha256)."""
    total = hashlib.sha256()
    for name, size, digest in files:
        total.update(f"{name}\0{size}\0{digest}\n".encode())
    return total.hexdigest()


def digest_of_file(file: Path) -> str:
    """Return the sha256 of one file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_in(path: Path) -> Iterator[Path]:
    """Yield every file below `path` (or `path` itself), sorted by its name."""
    if path.is_file():
        yield path
        return
    yield from sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.as_posix())


def artifacts_in(values: Frozen) -> Iterator[tuple[str, Artifact]]:
    """Yield (name, artifact) for each artifact field of inputs or outputs; collections get name.key."""
    for name, value in values:
        if isinstance(value, Artifact):
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", v) for key, v in value.items() if isinstance(v, Artifact))
        elif isinstance(value, tuple):
            pairs = enumerate(value)
            yield from ((f"{name}.{i}", v) for i, v in pairs if isinstance(v, Artifact))
