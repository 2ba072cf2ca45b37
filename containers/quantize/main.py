"""Make every format asked for, measure each against its parent, and let the recipe's rule pick what ships.

A gguf is measured in llama.cpp, the engine that serves it; the others in transformers, read back from disk.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

import time
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from containers.contract import Quantized, StageError, files_in
from containers.formats import ChatFormat, identity_of
from containers.model_folder import check_model
from containers.models import TOKENIZER_FILES, be_deterministic, copy_tokenizer, device_for, load_model
from containers.out import Out
from containers.quantize.contract import QuantizeConfig, QuantizeInputs, QuantizeOutputs
from containers.quantize.engine import Engine
from containers.quantize.folders import read_back, write_folder
from containers.quantize.gguf_writer import WEIGHTS, Checkpoint, write_gguf
from containers.quantize.measuring import Reading, passages_of, read
from containers.quantize.parent_answers import reference_of
from containers.quantize.shipping import choose

FILE = "model.gguf"
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
    bench = Bench(config, inputs, device, out)
    lines, made = [], {}
    for format in config.formats:
        began = time.monotonic()
        folder = out.artifact(format)
        lines.append(bench.line(format, folder))
        bench.reference.write(folder)
        lines[-1]["seconds"] = round(time.monotonic() - began, 1)
        made[format] = Quantized.of(folder, format=format, parent=inputs.model.digest, **identity_of(folder))
        out.say(said(lines[-1]))
    shipped = choose(lines, config)
    out.say(f"{shipped['format']} ships: {shipped['reason']}")
    out.record(parent_perplexity=bench.parent.perplexity, shipped_bytes=shipped["bytes"])
    out.record(**{f"perplexity/{line['format']}": line["perplexity"] for line in lines})
    out.write_card(
        formats=lines,
        shipped=shipped["format"],
        parent_perplexity=bench.parent.perplexity,
        tokens=len(bench.parent.nats),
        measured="gguf in llama.cpp, the engine that serves; the others in transformers, read back from disk",
    )
    return QuantizeOutputs(shipped=made[shipped["format"]], formats=made)


class Bench:
    """The parent, the held-out passages, and what the parent makes of them."""

    def __init__(self, config: QuantizeConfig, inputs: QuantizeInputs, device: torch.device, out: Out) -> None:
        """Read the passages with the parent; raises StageError when there are none."""
        self.config, self.source, self.device, self.out = config, inputs.model, device, out
        self.measured = 0
        self.chat = ChatFormat.load(inputs.model.path)
        self.context = min(config.passage_tokens, Checkpoint(inputs.model.path).context)
        self.passages = passages_of(inputs.corpus, self.chat, self.context, config)
        if not self.passages:
            raise StageError("there is no text to measure the formats on: give data.corpus a source with some")
        parent = load_model(inputs.model, config.precision, device=device)
        self.num_weights = parent.num_parameters()
        self.parent = read(parent, self.passages)
        self.reference = reference_of(parent, inputs.model, Checkpoint(inputs.model.path).context, config.precision)

    def line(self, format: str, folder: Path) -> dict[str, Any]:
        """Write `format` to `folder` and return its row of the table."""
        copy_tokenizer(self.source.path, folder)
        reading = self.gguf(format, folder) if format in WEIGHTS else self.in_transformers(format, folder)
        self.measured += 1
        self.told(0)
        size = size_of(folder)
        return {
            "format": format,
            "bytes": size,
            "bits_per_weight": round(8 * size / self.num_weights, 2),
            "perplexity": reading.perplexity,
            "delta": reading.perplexity / self.parent.perplexity - 1,
            "top1_agreement": reading.agreement(self.parent),
        }

    def told(self, passages: int) -> None:
        """Say how far the stage is: formats measured, and passages of the one under way."""
        share = passages / len(self.passages)
        self.out.progress(round(self.measured + share, 3), len(self.config.formats), "formats")

    def gguf(self, format: str, folder: Path) -> Reading:
        """Write a gguf and have llama.cpp read the passages; raises StageError when it splits text differently."""
        write_gguf(self.source.path, folder / FILE, format)
        with Engine(folder / FILE, self.context, self.config.threads) as engine:
            found, wanted = engine.encode(PROBE), self.chat.encode(PROBE)
            if found != wanted:
                raise StageError(
                    f"{self.source.path}/tokenizer.json: llama.cpp makes other tokens of a test text "
                    f"({found} instead of {wanted}): this tokenizer cannot be served"
                )
            return engine.read(self.passages, self.told)

    def in_transformers(self, format: str, folder: Path) -> Reading:
        """Write a Hugging Face folder and read the passages with what was read back."""
        write_folder(self.source, folder, format, self.device)
        return read(read_back(folder, self.device), self.passages)


def size_of(folder: Path) -> int:
    """Return the bytes of the weights in `folder`, without the tokenizer beside them."""
    return sum(file.stat().st_size for file in files_in(folder) if file.name not in TOKENIZER_FILES)


def said(line: dict[str, Any]) -> str:
    """Return a row of the table as a log line."""
    return (
        f"{line['format']}: {line['bytes'] / 1e6:.1f} MB, perplexity {line['perplexity']:.3f} "
        f"({line['delta']:+.2%}), top-1 agreement {line['top1_agreement']:.1%}"
    )
