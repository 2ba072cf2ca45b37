"""Write each adapter in llama.cpp's format, and have base and adapters answer in transformers for `package` to compare.

A model of several adapters (sft's, then dpo's) is the base with all of their products added up: each was trained on
the model that the ones before it had been merged into.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from containers.contract import Adapter, Model, StageError
from containers.convert.contract import ConvertConfig, ConvertInputs, ConvertOutputs
from containers.convert.lora import write_adapter
from containers.model_folder import check_identity, check_model, context_in, refuse_pickles
from containers.models import TRAINED_ON, be_deterministic, device_for, load_model
from containers.out import Out
from containers.quantize.parent_answers import reference_of
from containers.reference import Reference
from containers.unmerged import MADE_OF, Lineup, Unmerged


def run(config: ConvertConfig, inputs: ConvertInputs, out: Out) -> ConvertOutputs:
    """Write the folder of `containers.unmerged`; raises StageError for adapters that fit no such base."""
    torch.set_num_threads(config.threads)
    device = device_for(config.device)
    be_deterministic(device)
    context = context_in(check_model(inputs.base))
    for chain in inputs.models.values():
        check_base(inputs.base, inputs.adapters[chain[0]], chain[0])
    folder = out.artifact("adapters")
    for name, adapter in sorted(inputs.adapters.items()):
        check_adapter(inputs.base, adapter, name)
        write_adapter(inputs.base.path, adapter.path, folder / f"{name}.gguf")
    taught = with_adapters(load_model(inputs.base, config.precision, device=device), inputs.adapters)
    references = {}
    for done, (name, chain) in enumerate(sorted(inputs.models.items())):
        out.progress(done, len(inputs.models), "models")
        taught.base_model.set_adapter(list(chain))
        references[name] = reference_of(taught.get_base_model(), inputs.base, context, config.precision)
        write_model(folder / name, references[name], inputs, chain)
    del taught
    apart = distance(load_model(inputs.whole, config.precision, device=device), references[inputs.last])
    tell(config, inputs, apart, out)
    Lineup(base=inputs.base.digest, models=inputs.models, last=inputs.last).write(folder)
    return ConvertOutputs(adapters=Unmerged.of(folder, base=inputs.base.digest, whole=inputs.whole.digest))


def check_base(base: Model, adapter: Adapter, name: str) -> None:
    """Refuse a first adapter that was trained on another model."""
    if adapter.base != base.digest:
        raise StageError(
            f"the adapter {name} was trained on base {adapter.base[:12]}, and this base is {base.digest[:12]}: "
            "keep it beside the model that its stage took"
        )


def check_adapter(base: Model, adapter: Adapter, name: str) -> None:
    """Refuse an adapter of a 4-bit base, or one whose tokenizer, template or stop ids are not the base's."""
    check_identity(adapter)
    refuse_pickles(adapter.path)
    for part in ("tokenizer", "template", "stop_ids"):
        if getattr(adapter, part) != getattr(base, part):
            raise StageError(f"{adapter.path}: the {part} of the adapter {name} is not its base's: train it again")
    file = adapter.path / TRAINED_ON
    if not file.is_file():
        raise StageError(f"{adapter.path} holds no {TRAINED_ON}: it was made by no stage of ours")
    if json.loads(file.read_text(encoding="utf-8"))["quantization"]:
        raise StageError(
            f"the adapter {name} was trained beside 4-bit weights (qlora) and corrects their rounding too, so that it "
            "fits no 16-bit base: train it with lora, or merge it (`package.adapters=merged`)"
        )


def with_adapters(model: PreTrainedModel, adapters: dict[str, Adapter]) -> PeftModel:
    """Return `model` with every adapter beside its weights, by name; which ones count is for `set_adapter` to say."""
    (first, source), *others = adapters.items()
    taught = PeftModel.from_pretrained(model, source.path, adapter_name=first)
    for name, adapter in others:
        taught.load_adapter(adapter.path, adapter_name=name)
    return taught.eval()


def write_model(folder: Path, reference: Reference, inputs: ConvertInputs, chain: tuple[str, ...]) -> None:
    """Write what a model says in transformers, and what it is made of."""
    folder.mkdir()
    reference.write(folder)
    adapters = [{"name": name, "digest": inputs.adapters[name].digest} for name in chain]
    made_of = {"base": inputs.base.digest, "adapters": adapters}
    (folder / MADE_OF).write_text(json.dumps(made_of, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@torch.inference_mode()
def distance(whole: Any, reference: Reference) -> float:
    """Return the mean |difference| in nats between a model's log-probabilities of the answers and the reference's."""
    found = [0.0]
    for exchange in reference.exchanges:
        read = torch.tensor([[*exchange.ids, *exchange.answer]], device=whole.device)
        logits = whole(input_ids=read, use_cache=False).logits[0, len(exchange.ids) - 1 : -1].float().cpu()
        said = torch.log_softmax(logits, -1).gather(1, torch.tensor(exchange.answer)[:, None])[:, 0]
        found += (said - torch.tensor(exchange.log_probs)).abs().tolist()
    return fmean(found[1:] or found)


def tell(config: ConvertConfig, inputs: ConvertInputs, apart: float, out: Out) -> None:
    """Record what was made; raises ArithmeticError where the models apart are not the one that was measured."""
    out.record(adapters=len(inputs.adapters), models=len(inputs.models), nats_from_whole=apart)
    out.write_card(
        models={name: list(chain) for name, chain in inputs.models.items()},
        last=inputs.last,
        nats_from_whole=apart,
        max_nats=config.max_nats,
    )
    if not apart <= config.max_nats:
        raise ArithmeticError(
            f"{inputs.last}, its adapters beside the base, is {apart:.3f} nats from the merged model that was "
            f"measured, and {config.max_nats:g} are allowed: the adapters are not the ones that it was merged from, or "
            "it is deep and stored in 16 bit: then raise convert.max_nats"
        )
    named = ", ".join(f"{name} ({' + '.join(chain)})" for name, chain in inputs.models.items())
    out.say(f"adapters beside their base: {named}; {inputs.last} is {apart:.4f} nats from the merged model")
