"""What each stage of a plan will need: peak memory, disk and time, from arithmetic and from what this machine did.

Memory of training, per weight: 16 bytes for all weights in mixed or full precision (weight, gradient and two moments
of AdamW at 4 bytes; Rajbhandari et al. 2020, section 3.1), 4 for a frozen base, 0.6 for a base in 4 bit. On top
come activations and the libraries themselves. Time is 6 operations per weight and token of training (Kaplan et al.
2020, section 2.1). A stage that ran here before with the same sizes costs what it cost then.
"""

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers.contract import Artifact, Frozen, Model, StageError, artifacts_in, files_in
from infra.doctor import gpu_memory, usable_memory
from infra.planning import Foreseen, is_foreseen
from infra.settings import Settings

GIB = 2**30
LIBRARIES_BYTES = 0.6 * GIB
"""What an interpreter with torch and transformers takes before it holds a model."""
BYTES_PER_WEIGHT = {"full": 16.0, "lora": 4.5, "qlora": 1.2}
FROZEN_BYTES = 4.0
"""Of each weight of a reference or a reward model, kept in fp32 as the policy is."""
ACTIVATIONS_PER_LAYER = 34.0
"""Bytes per token and unit of width that a 16-bit layer keeps (Korthikanti et al. 2022, eq. 2); twice that in fp32."""
CPU_OPERATIONS_PER_SECOND = 2e11
"""What small models reach on two cores; only until a stage has run here once."""
SIZES = ("depth", "shape", "max_tokens", "epochs", "max_steps", "max_length", "sequence_length", "micro_batch_size",
         "batch_size", "method", "precision", "max_items", "max_new_tokens", "sources", "vocab_size")  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What decides a model's cost."""

    weights: float
    width: int
    layers: int
    vocabulary: int


@dataclass(frozen=True)
class Cost:
    """A forecast; None where nothing is known."""

    memory_bytes: float | None
    disk_bytes: float | None
    seconds: float | None
    basis: str
    """`measured here` or `calculated`."""
    on_gpu: bool = False


def forecasts(stages: Sequence[Foreseen]) -> list[Cost]:
    """Return the cost of each stage of a plan, in order; shapes of models not made yet follow from their configs."""
    shapes: dict[str, Shape] = {}
    vocabulary = 32_000
    costs = []
    for stage in stages:
        vocabulary = getattr(stage.config, "vocab_size", vocabulary)
        shape = shape_in(stage, shapes, vocabulary)
        if shape:
            shapes[f"foreseen:{stage.title}"] = shape
        costs.append(measured(stage) or calculated(stage, shape))
    return costs


def shape_in(stage: Foreseen, shapes: dict[str, Shape], vocabulary: int) -> Shape | None:
    """Return the shape of the model that a stage makes or takes."""
    if stage.stage.word == "pretrain" and getattr(stage.inputs, "start", None) is None:
        return shape_of_config(stage.config, vocabulary)
    for _, artifact in artifacts_in(stage.inputs):
        if artifact.digest in shapes:
            return shapes[artifact.digest]
        if isinstance(artifact, Model) and not is_foreseen(artifact):
            return shape_of_model(artifact.path)
    return None


def shape_of_config(config: Frozen, vocabulary: int) -> Shape:
    """Return the shape that pretraining would make from its dial (or spelt out)."""
    spelt: Any = getattr(config, "shape", None)
    layers = spelt.layers if spelt else config.depth  # type: ignore[attr-defined]
    width = spelt.width if spelt else max(64, 64 * round(48 * layers / 64))
    return Shape(12.0 * layers * width**2 + vocabulary * width, width, layers, vocabulary)


def shape_of_model(folder: Path) -> Shape:
    """Return the shape of a checkpoint, weights counted from the headers of its safetensors files."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = sum(weights_in(file) for file in folder.glob("*.safetensors"))
    return Shape(weights, config["hidden_size"], config["num_hidden_layers"], config["vocab_size"])


def weights_in(file: Path) -> float:
    """Return the number of weights of one safetensors file, from its header alone."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    total = 0.0
    for name, tensor in header.items():
        if name != "__metadata__":
            count = 1.0
            for length in tensor["shape"]:
                count *= length
            total += count
    return total


def measured(stage: Foreseen) -> Cost | None:
    """Return what the stage cost when it last ran here, if its sizes were the same."""
    before = stage.before
    if before is None:
        return None
    now = stage.config.model_dump(mode="json")
    if any(now.get(name) != before.request.config.get(name) for name in SIZES):
        return None
    disk = float(sum(file.stat().st_size for file in files_in(before.folder / "outputs")))
    memory = before.result.metrics.get("peak_memory_bytes")
    return Cost(memory, disk, before.result.seconds, "measured here", on_gpu(stage.config))


def calculated(stage: Foreseen, shape: Shape | None) -> Cost:
    """Return what arithmetic says."""
    formula = FORMULAS.get(stage.stage.word)
    if formula is None or (shape is None and stage.stage.word not in ("data", "tokenizer")):
        return Cost(None, None, None, "not known before it has run once")
    memory, disk, operations = formula(stage, shape or Shape(0, 0, 0, 0))
    gpu = on_gpu(stage.config)
    seconds = operations / CPU_OPERATIONS_PER_SECOND if operations and not gpu else None
    return Cost(memory, disk, seconds, "calculated", gpu)


Needs = tuple[float, float | None, float | None]


def data_needs(stage: Foreseen, _shape: Shape) -> Needs:
    """Streamed in shards: memory stays below 1 GiB, what is kept is at most what was read."""
    return 1.0 * GIB, float(sum(size_of(artifact) for _, artifact in artifacts_in(stage.inputs))), None


def tokenizer_needs(stage: Foreseen, _shape: Shape) -> Needs:
    """The sample that merges are counted on, and its table of words."""
    sample = min(getattr(stage.config, "sample_bytes", GIB), sum(size_of(a) for _, a in artifacts_in(stage.inputs)))
    return 0.3 * GIB + 3.0 * sample, 5e6, None


def pretrain_needs(stage: Foreseen, shape: Shape) -> Needs:
    """All weights are trained."""
    config: Any = stage.config
    memory = BYTES_PER_WEIGHT["full"] * shape.weights + activations(config, config.sequence_length, shape)
    return memory + LIBRARIES_BYTES, 4.0 * shape.weights, 6.0 * shape.weights * config.max_tokens


def sft_needs(stage: Foreseen, shape: Shape) -> Needs:
    """All weights, an adapter on frozen ones, or on 4-bit ones; tokens are known once the data is."""
    config: Any = stage.config
    memory = BYTES_PER_WEIGHT[config.method] * shape.weights + activations(config, config.max_length, shape)
    steps = config.max_steps or 0
    operations = 6.0 * shape.weights * steps * config.batch_size * config.max_length / 4 if steps else None
    return memory + LIBRARIES_BYTES, (4.0 if config.method == "full" else 0.1) * shape.weights, operations


def aligning(copies: float) -> Callable[[Foreseen, Shape], Needs]:
    """Return the formula of a stage that aligns; `copies` of all weights are kept frozen beside those in training."""

    def needs(stage: Foreseen, shape: Shape) -> Needs:
        config: Any = stage.config
        method = config.weights.method
        frozen = FROZEN_BYTES * copies if method == "full" else 0.0
        length = getattr(config, "max_length", 0) or getattr(config, "max_prompt_tokens", 0) + config.max_new_tokens
        memory = (BYTES_PER_WEIGHT[method] + frozen) * shape.weights + activations(config, length, shape)
        return memory + LIBRARIES_BYTES, (4.0 if method == "full" else 0.1) * shape.weights, None

    return needs


def holding(bytes_per_weight: float, disk_per_weight: float) -> Callable[[Foreseen, Shape], Needs]:
    """Return the formula of a stage that holds the model and trains nothing."""

    def needs(_stage: Foreseen, shape: Shape) -> Needs:
        return bytes_per_weight * shape.weights + LIBRARIES_BYTES, disk_per_weight * shape.weights, None

    return needs


FORMULAS: dict[str, Callable[[Foreseen, Shape], Needs]] = {
    "data": data_needs,
    "tokenizer": tokenizer_needs,
    "pretrain": pretrain_needs,
    "sft": sft_needs,
    "merge": holding(8.0, 2.0),
    "critique": holding(4.0, 0.0),
    "candidates": holding(4.0, 0.0),
    "reward": aligning(copies=0),
    "dpo": aligning(copies=0),
    "rlhf": aligning(copies=2),
    "grpo": aligning(copies=1),
    "evaluate": holding(4.0, 0.0),
    "quantize": holding(8.0, 5.0),
    "convert": holding(4.0, 0.1),
    "package": holding(2.0, 2.0),
}


def activations(config: Any, length: int, shape: Shape) -> float:
    """Return the bytes that one micro-batch keeps for its backward pass, logits included."""
    wide = 2.0 if config.precision == "fp32" else 1.0
    kept = 2.0 if getattr(config, "gradient_checkpointing", False) else ACTIVATIONS_PER_LAYER * wide
    tokens = (config.micro_batch_size or config.micro_batch) * length
    return float(tokens * (shape.layers * shape.width * kept + 3 * 4 * shape.vocabulary))


def size_of(artifact: Artifact) -> int:
    """Return an artifact's bytes; none for one that is not made yet."""
    return 0 if is_foreseen(artifact) else sum(file.stat().st_size for file in files_in(artifact.path))


def on_gpu(config: Frozen) -> bool:
    """Whether a stage with this config takes the GPU of this machine."""
    return getattr(config, "device", "cpu") in ("auto", "cuda") and gpu_memory() > 0


def refuse_what_cannot_fit(settings: Settings, stages: Sequence[Foreseen], costs: Sequence[Cost]) -> None:
    """Raise StageError naming every stage that needs more memory, or all of them more disk, than there is."""
    wrong = []
    for stage, cost in zip(stages, costs, strict=True):
        there = gpu_memory() if cost.on_gpu else usable_memory()
        if not stage.reused and (cost.memory_bytes or 0) > there:
            whose = "GPU" if cost.on_gpu else "machine"
            wrong.append(
                f"{stage.title} needs about {(cost.memory_bytes or 0) / GIB:.1f} GiB and this {whose} has "
                f"{there / GIB:.1f}: lower {stage.stage.word}.micro_batch_size, or use a smaller model"
            )
    disk = sum(cost.disk_bytes or 0 for stage, cost in zip(stages, costs, strict=True) if not stage.reused)
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if disk > free:
        wrong.append(f"the run writes about {disk / GIB:.1f} GiB and {free / GIB:.1f} are free: `slipway prune`")
    if wrong:
        raise StageError("this cannot fit:\n  " + "\n  ".join(wrong))
