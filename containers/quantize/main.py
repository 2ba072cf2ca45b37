"""Make every format asked for, measure each against its parent, and let the recipe's rule pick what ships.

The perplexity of a gguf is that of its weights, read back from the file by transformers. Its top-1 agreement is asked
of llama.cpp itself, so that what is measured includes the engine that serves.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from containers.contract import Model, Quantized, StageError, files_in
from containers.formats import ChatFormat, identity_of
from containers.models import TOKENIZER_FILES, check_model, copy_tokenizer, device_for, load_model
from containers.out import Out
from containers.quantize.contract import QuantizeConfig, QuantizeInputs, QuantizeOutputs
from containers.quantize.engine import Engine, some_rows
from containers.quantize.gguf_writer import WEIGHTS, write_gguf
from containers.quantize.measuring import Reading, agreement, held_out_rows, read

FILE = "model.gguf"
BITSANDBYTES = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
}


def run(config: QuantizeConfig, inputs: QuantizeInputs, out: Out) -> QuantizeOutputs:
    """Write the formats, measure them, choose."""
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    transformers_logging.disable_progress_bar()
    shape = check_model(inputs.model)
    bench = Bench(config, inputs, min(config.passage_tokens, shape["max_position_embeddings"]), out)
    lines, made = [], {}
    for number, format in enumerate(config.formats):
        out.progress(number, len(config.formats), "formats")
        folder = out.artifact(format)
        write(format, inputs.model, folder, bench)
        lines.append(bench.line(format, folder))
        made[format] = Quantized.of(folder, format=format, parent=inputs.model.digest, **identity_of(folder))
        out.say(said(lines[-1]))
    shipped = choose(lines, config)
    out.say(f"{shipped} ships")
    out.record(parent_perplexity=bench.parent.perplexity, shipped_bytes=size_of(made[shipped].path))
    out.write_card(formats=lines, parent_perplexity=bench.parent.perplexity)
    return QuantizeOutputs(shipped=made[shipped], formats=made)


def write(format: str, model: Model, folder: Path, bench: "Bench") -> None:
    """Write `model` in `format` to `folder`, tokenizer and template beside it."""
    if format in WEIGHTS:
        write_gguf(model.path, folder / FILE, format)
    else:
        quantized = AutoModelForCausalLM.from_pretrained(
            model.path,
            dtype=torch.bfloat16,
            quantization_config=BitsAndBytesConfig(**BITSANDBYTES[format], bnb_4bit_compute_dtype=torch.bfloat16),
            device_map={"": bench.device},
            local_files_only=True,
        )
        quantized.config._name_or_path = ""
        quantized.save_pretrained(folder)
    copy_tokenizer(model.path, folder)


class Bench:
    """The held-out rows and what the parent makes of them."""

    def __init__(self, config: QuantizeConfig, inputs: QuantizeInputs, context: int, out: Out) -> None:
        """Read the rows with the parent."""
        self.config, self.out, self.context = config, out, context
        self.device = device_for(config.device)
        chat = ChatFormat.load(inputs.model.path)
        self.rows = held_out_rows(inputs.corpus, chat, context, config)
        if not self.rows:
            raise StageError("the corpus has no text to measure the formats on: give data.corpus a source with some")
        parent = load_model(inputs.model, config.precision, device=self.device)
        self.num_weights = parent.num_parameters()
        self.parent = self.read(parent)
        self.asked = some_rows(self.rows, config.engine_tokens)

    def read(self, model: Any) -> Reading:
        """Return what `model` makes of the rows."""
        return read(model, self.rows, lambda done: self.out.progress(done, len(self.rows), "documents"))

    def line(self, format: str, folder: Path) -> dict[str, Any]:
        """Measure what was written to `folder`."""
        kind = {"gguf_file": FILE, "dtype": torch.float32} if format in WEIGHTS else {"device_map": {"": self.device}}
        reading = self.read(AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **kind).eval())
        share = agreement(self.parent.picks, reading.picks)
        if format in WEIGHTS:
            engine = Engine(folder / FILE, self.context, self.config.threads)
            rows = [self.rows[i] for i in self.asked]
            share = agreement([self.parent.picks[i] for i in self.asked], engine.picks(rows))
        size = size_of(folder)
        return {
            "format": format,
            "bytes": size,
            "bits_per_weight": round(8 * size / self.num_weights, 2),
            "perplexity": reading.perplexity,
            "delta": reading.perplexity / self.parent.perplexity - 1,
            "top1_agreement": share,
        }


def choose(lines: list[dict[str, Any]], config: QuantizeConfig) -> str:
    """Return the gguf named by the recipe, or the smallest within its bounds, else the best; say why in each line."""
    for line in lines:
        line["reason"] = verdict(line, config)
    served = sorted((line for line in lines if line["format"] in WEIGHTS), key=lambda line: line["bytes"])
    within = [line for line in served if not line["reason"]]
    best = min(served, key=lambda line: line["delta"])
    named = next((line for line in served if line["format"] == config.ship), None)
    chosen = named or (within[0] if within else best)
    if named:
        chosen["reason"] = "named by the recipe"
    else:
        chosen["reason"] = (
            "the smallest within the bounds" if within else f"none is within the bounds: {chosen['reason']}"
        )
    for line in lines:
        line["shipped"] = line is chosen
        line["reason"] = line["reason"] or "within the bounds, but larger"
    return str(chosen["format"])


def verdict(line: dict[str, Any], config: QuantizeConfig) -> str:
    """Return why a format may not ship; empty when it may."""
    if line["format"] not in WEIGHTS:
        return "for transformers; the engine serves gguf"
    if line["delta"] > config.max_perplexity_increase:
        return f"perplexity {line['delta']:+.1%}, allowed {config.max_perplexity_increase:+.1%}"
    if line["top1_agreement"] < config.min_top1_agreement:
        return f"top-1 agreement {line['top1_agreement']:.1%}, at least {config.min_top1_agreement:.1%} wanted"
    return ""


def size_of(folder: Path) -> int:
    """Return the bytes of the weights in `folder`, without the tokenizer beside them."""
    return sum(file.stat().st_size for file in files_in(folder) if file.name not in TOKENIZER_FILES)


def said(line: dict[str, Any]) -> str:
    """Return a line of the table as a log line."""
    return (
        f"{line['format']}: {line['bytes'] / 1e6:.1f} MB, perplexity {line['perplexity']:.3f} "
        f"({line['delta']:+.2%}), top-1 agreement {line['top1_agreement']:.1%}"
    )
