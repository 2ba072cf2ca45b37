"""Make every format asked for, measure each against its parent, and let the gate pick what ships.

A gguf is measured in llama.cpp, the engine that serves it; the others in transformers, read back from disk.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from containers.contract import Quantized, StageError, files_in
from containers.formats import ChatFormat, identity_of
from containers.model_folder import check_model
from containers.models import TOKENIZER_FILES, be_deterministic, copy_tokenizer, device_for, load_model
from containers.out import Out
from containers.quantize.calibrated import LAYOUTS, Rounding, calibration_of
from containers.quantize.config import QuantizeConfig
from containers.quantize.contract import QuantizeInputs, QuantizeOutputs
from containers.quantize.eight_bit_floats import write_floats
from containers.quantize.engine import Engine, Unfit
from containers.quantize.folders import footprint_of, write_folder
from containers.quantize.footprint import footprint
from containers.quantize.gguf_tokens import Vocabulary
from containers.quantize.gguf_types import WEIGHTS
from containers.quantize.gguf_writer import Checkpoint, stored, write_gguf
from containers.quantize.measuring import TOP, Reading, passages_of, read
from containers.quantize.parent_answers import reference_of
from containers.quantize.shipping import choose, last_of, passing
from containers.quantize.solving import compared, marks, problems_of, share, solve
from containers.quantized_folder import check_kernels, load_folder

FILE = "model.gguf"
KL = (
    f"mean KL(parent || format), nats per token; over the {TOP} likeliest tokens of each, all others as one: "
    "a lower bound"
)
PROBE = "It's 12,345.67 km -- fine?\n\n  <|im_end|> \u00e9\u00df \u4f60\u597d \U0001f600\tEND "
"""A text that tokenizers disagree on: contractions, digits, spaces, a control token spelt out, scripts, an emoji."""


def run(config: QuantizeConfig, inputs: QuantizeInputs, out: Out) -> QuantizeOutputs:
    """Write the formats, measure them, choose; raises StageError for a model or tokenizer that cannot be converted."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = device_for(config.device)
    be_deterministic(device)
    transformers_logging.disable_progress_bar()
    check_model(inputs.model)
    check_kernels(set(config.formats))
    bench = Bench(config, inputs, device, out)
    for format in config.formats:
        bench.add(format)
    if passing(bench.lines, config) is None and last_of(config) not in bench.made:
        bench.add(last_of(config))
    shipped = choose(bench.lines, config)
    out.say(f"{shipped['format']} ships: {shipped['reason']}")
    out.record(parent_perplexity=bench.perplexity, shipped_bytes=shipped["bytes"])
    out.record(**{f"perplexity/{n['format']}": n["perplexity"] for n in bench.lines if n["perplexity"] is not None})
    out.write_card(
        formats=bench.lines,
        shipped=shipped["format"],
        parent_perplexity=bench.perplexity,
        tokens=bench.tokens,
        problems=len(bench.problems),
        parent_accuracy=share(bench.parent.solved),
        kl_divergence=KL,
        measured="gguf in llama.cpp, the engine that serves; the others in transformers, read back from disk",
    )
    return QuantizeOutputs(shipped=bench.made[shipped["format"]], formats=bench.made)


@dataclass(frozen=True)
class Trial:
    """What a model made of the passages and the problems, and what it took."""

    reading: Reading | None = None
    solved: list[bool] | None = None
    footprint: dict[str, Any] = field(default_factory=lambda: {"memory_bytes": None, "tokens_per_second": None})


class Bench:
    """The parent, the held-out passages, and what the parent makes of them."""

    def __init__(self, config: QuantizeConfig, inputs: QuantizeInputs, device: torch.device, out: Out) -> None:
        """Read the passages with the parent; raises StageError when there are none."""
        self.config, self.source, self.device, self.out = config, inputs.model, device, out
        self.corpus = inputs.corpus
        self.lines: list[dict[str, Any]] = []
        self.made: dict[str, Quantized] = {}
        self.chat = ChatFormat.load(inputs.model.path)
        checkpoint = Checkpoint(inputs.model.path)
        self.context = min(config.passage_tokens, checkpoint.context)
        self.passages = passages_of(inputs.corpus, self.chat, self.context, config)
        if not self.passages:
            raise StageError("there is no text to measure the formats on: give data.corpus a source with some")
        self.problems = problems_of(inputs.problems, self.chat, checkpoint.context, config)
        self.room = max([self.context, *(len(problem.ids) + problem.limit for problem in self.problems)])
        if set(config.formats) & set(WEIGHTS):  # what llama.cpp cannot split is refused before the parent reads
            Vocabulary.of(inputs.model.path, int(checkpoint.config["vocab_size"]))
        parent = load_model(inputs.model, config.precision, device=device)
        self.num_weights = parent.num_parameters()
        reading = read(parent, self.passages)
        self.perplexity, self.tokens = reading.perplexity, len(reading.nats)
        self.parent = Trial(reading, solve(parent, self.problems, self.chat))
        self.reference = reference_of(parent, inputs.model, checkpoint.context, config.precision)

    def add(self, format: str) -> None:
        """Write a format, measure it, and keep its row of the table; one that its engine refuses stays, with why."""
        began = time.monotonic()
        folder = self.out.artifact(format)
        copy_tokenizer(self.source.path, folder)
        refused, trial = None, Trial()
        try:
            trial = self.gguf(format, folder) if format in WEIGHTS else self.in_transformers(format, folder)
        except Unfit as error:
            refused = str(error)
        line = self.line(format, size_of(folder), trial) | {"refused": refused}
        self.reference.write(folder)
        line["seconds"] = round(time.monotonic() - began, 1)
        self.made[format] = Quantized.of(folder, format=format, parent=self.source.digest, **identity_of(folder))
        self.lines.append(line)
        self.told(0)
        self.out.say(said(line))

    def line(self, format: str, size: int, trial: Trial) -> dict[str, Any]:
        """Return the row of a format whose weights take `size` bytes; a figure is None where it was not measured."""
        reading, parent = trial.reading, self.parent.reading
        return {
            "format": format,
            "bytes": size,
            "bits_per_weight": round(8 * size / self.num_weights, 2),
            **trial.footprint,
            "perplexity": reading and reading.perplexity,
            "delta": reading and reading.perplexity / self.perplexity - 1,
            "kl_divergence": reading and reading.divergence_from(parent),
            "top1_agreement": reading and reading.agreement(parent),
            **compared(self.parent.solved, trial.solved),
            **(stored(self.source.path, format) if format in WEIGHTS else {"tensors": None, "fallbacks": None}),
        }

    def told(self, passages: int) -> None:
        """Say how far the stage is: formats measured, and passages of the one under way."""
        share = passages / len(self.passages)
        self.out.progress(round(len(self.lines) + share, 3), len(self.config.formats), "formats")

    def gguf(self, format: str, folder: Path) -> Trial:
        """Write a gguf and try it in llama.cpp; raises StageError when that splits text differently."""
        file, threads = folder / FILE, self.config.threads
        write_gguf(self.source.path, file, format)
        with Engine(file, self.room, threads) as engine:
            found, wanted = engine.encode(PROBE), self.chat.encode(PROBE)
            if found != wanted:
                raise StageError(
                    f"{self.source.path}/tokenizer.json: llama.cpp makes other tokens of a test text "
                    f"({found} instead of {wanted}): this tokenizer cannot be served"
                )
            reading = engine.read(self.passages, self.told)
            answers = engine.answer_all([(problem.ids, problem.limit) for problem in self.problems])
        return Trial(reading, marks(answers, self.problems, self.chat), footprint(file, self.room, threads))

    def in_transformers(self, format: str, folder: Path) -> Trial:
        """Write a Hugging Face folder and try what was read back."""
        if format in LAYOUTS:
            pieces = calibration_of(self.corpus, self.chat, self.context, self.config)
            Rounding(pieces, self.config, self.out.work).write(self.source, folder, format)
        elif format == "fp8":
            write_floats(self.source, folder)
        else:
            write_folder(self.source, folder, format, self.device)
        model = load_folder(folder, self.device)
        reading = read(model, self.passages)
        if not np.isfinite(reading.nats).all():
            raise Unfit("transformers makes no numbers of it: a probability is NaN")
        return Trial(reading, solve(model, self.problems, self.chat), footprint_of(model))


def size_of(folder: Path) -> int:
    """Return the bytes of the weights in `folder`, without the tokenizer beside them."""
    return sum(file.stat().st_size for file in files_in(folder) if file.name not in TOKENIZER_FILES)


def said(line: dict[str, Any]) -> str:
    """Return a row of the table as a log line."""
    if line["refused"]:
        return f"{line['format']}: {line['bytes'] / 1e6:.1f} MB, refused: {line['refused']}"
    return (
        f"{line['format']}: {line['bytes'] / 1e6:.1f} MB, perplexity {line['perplexity']:.4g} "
        f"({100 * line['delta']:+.3g}%), KL {line['kl_divergence']:.2g} nats, "
        f"top-1 agreement {line['top1_agreement']:.1%}"
    )
