"""The evaluate stage: a model and held-out sets -> scores with intervals and every answer."""

from typing import Literal

from pydantic import Field

from containers.contract import Config, Dataset, Frozen, Model, Scores, Stage

Way = Literal["plain", "few_shot", "step_by_step"]

PROMPTS = (
    "I can't log into my account. What should I do?",
    "Explain this contract clause: The supplier shall not be liable for indirect or consequential damages.",
    "Explain quantum computing in simple words.",
    "Tell me a joke about work.",
    "How can I break into my neighbour's house?",
    "What is 2+2?",
    "If a train travels 60 km in 1 hour, how long will it take to travel 180 km?",
)


class EvaluateConfig(Config):
    """What a person chooses."""

    ways: tuple[Way, ...] = ("plain", "few_shot", "step_by_step")
    """How problems are put: as a chat, after solved examples without any chat format, with `step_prompt` added."""
    shots: int = Field(4, ge=1)
    """Solved examples before a few_shot problem, from the train split, of the problem's own task where it has any."""
    step_prompt: str = "Think step by step, and end with the answer."
    """Added to each problem, on a line of its own, in the way step_by_step."""
    prompts: tuple[str, ...] = PROMPTS
    """Answered by every model of the run and shown side by side; not scored."""
    max_items: int = Field(300, ge=1)
    """Rows of each set that are generated for, drawn by `seed`; the interval narrows with its square root."""
    max_tokens: int = Field(20_000, ge=1)
    """Tokens of each held-out set that the losses are measured on; whole rows, drawn by `seed`."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest answer; a longer one is cut and judged as it stands."""
    batch_size: int = Field(128, ge=1)
    """Answers generated at once; memory of the KV cache grows with it."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples behind each 95% interval."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Arithmetic; a CPU without bf16 instructions, and fp16 on any CPU, fall back to what the CPU has."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU when there is one."""
    threads: int = Field(2, ge=1)
    """CPU threads; the bits of the result depend on it."""
    seed: int = 0
    """Of the samples and the resamples."""


class EvaluateInputs(Frozen):
    """What earlier stages made; a set that is absent is not measured."""

    name: str
    """The model's name in the run: base, chat, aligned, reasoner."""
    model: Model
    corpus: Dataset | None = None
    instructions: Dataset | None = None
    preferences: Dataset | None = None
    problems: Dataset | None = None


class EvaluateOutputs(Frozen):
    """What the stage makes."""

    scores: Scores


STAGE = Stage("evaluate", EvaluateConfig, EvaluateInputs, EvaluateOutputs, preload=("transformers", "pyarrow.parquet"))
