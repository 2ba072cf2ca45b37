"""The model that is aligned and the reference that it is held to: its adapter switched off, or a frozen copy."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from containers.adapters import add_adapter, bits_and_bytes, quantization_of, save_adapter
from containers.alignment import AlignmentConfig
from containers.contract import Adapter, Model
from containers.formats import ChatFormat, identity_of
from containers.models import DTYPES, be_deterministic, device_for, load_model, save_model, working_precision
from containers.out import Out
from containers.packing import ATTENTION, Narrowing, attend_packed
from containers.weights import FullWeights, QLoRAWeights


def prepare_machine(config: AlignmentConfig, out: Out) -> tuple[torch.device, str]:
    """Fix threads, seeds and algorithms, so that the same bits come out; return (device, precision to work in)."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = device_for(config.device)
    be_deterministic(device)
    precision, why = working_precision(config.precision, device)
    if why:
        out.say(why)
    return device, precision


@dataclass
class Policy:
    """A policy in training; make one with `load`."""

    model: Any
    """A causal language model, or the same with an adapter (PeftModel)."""
    frozen: Any | None
    """The reference's own weights where all weights are trained; None for an adapter, or where none is needed."""
    source: Model
    loaded_as: dict[str, Any]
    """How an adapter's base was loaded; empty where all weights are trained."""
    chat: ChatFormat
    device: torch.device
    precision: str

    @classmethod
    def load(cls, source: Model, config: AlignmentConfig, out: Out, *, referenced: bool = True) -> "Policy":
        """Load `source` to be trained as `config.weights` says; raises StageError as `check_model` does.

        All weights are trained in fp32 under autocast, and so is their frozen copy kept: at the first step the two
        agree to the bit. `referenced=False` spares the copy.
        """
        device, precision = prepare_machine(config, out)
        chat = ChatFormat.load(source.path)
        if isinstance(config.weights, FullWeights):
            model = packed(load_model(source, "fp32", device=device))
            frozen = packed(load_model(source, "fp32", device=device)).requires_grad_(False) if referenced else None
            return cls(model, frozen, source, {}, chat, device, precision)
        quantization = None
        if isinstance(config.weights, QLoRAWeights):
            quantization = quantization_of(config.weights.double_quantization, precision)
        base = packed(load_model(source, precision, bits_and_bytes(quantization), device))
        model = add_adapter(base, config.weights, config.seed, gradient_checkpointing=config.gradient_checkpointing)
        for parameter in model.parameters():
            if parameter.requires_grad:  # bf16 would round small updates away
                parameter.data = parameter.data.float()
        return cls(model, None, source, {"precision": precision, "quantization": quantization}, chat, device, precision)

    @contextmanager
    def as_reference(self) -> Iterator[Any]:
        """Yield the model that scores as the reference does, without gradients."""
        switched_off = nullcontext() if self.frozen is not None or not self.loaded_as else self.model.disable_adapter()
        with switched_off, torch.no_grad():
            yield self.frozen if self.frozen is not None else self.model

    def autocast(self) -> Any:
        """Return the context of the forward pass: the precision that this device can work in."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision])

    def save(self, out: Out) -> Model | Adapter:
        """Write the model, or the adapter, to outputs/model; its tokenizer beside it."""
        folder = out.artifact("model")
        if self.loaded_as:
            return save_adapter(self.model, folder, self.source, self.loaded_as)
        self.model.set_attn_implementation("sdpa")
        save_model(self.model, folder, self.source.path)
        return Model.of(folder, **identity_of(folder))


def packed(model: Any) -> Any:
    """Return `model` attending within the conversations of a packed row, its last layer narrowed to what predicts."""
    attend_packed(model, model.config.max_position_embeddings)
    assert model.config._attn_implementation == ATTENTION
    Narrowing(model)
    return model
