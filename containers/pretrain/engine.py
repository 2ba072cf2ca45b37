"""One optimizer step on any device: arithmetic, compilation, loss, gradients, optimizer.

Attention stays within a document through a block-diagonal mask, built once per batch. At 256 tokens a row that costs 4%
of the time of plain causal attention, which would let documents read each other; no kernel on a CPU skips the blocks.
"""

import math
import shutil
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from containers.contract import StageError
from containers.muon import Muon, groups_of
from containers.pretrain.config import PretrainConfig
from containers.pretrain.packing import IGNORED, Batch

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
WORTH_COMPILING = {"cpu": 3e13, "cuda": 1e16}
"""Floating-point operations from which a run earns back the 25 s that compiling costs (a sixth faster on a CPU, more on
a GPU): some five minutes of eager training on two cores, two on a large GPU."""
BETAS = (0.9, 0.95)


@dataclass(frozen=True)
class Step:
    """What one optimizer step did; tensors, so that nothing waits for the GPU until someone reads them."""

    nats: Tensor
    """Mean loss per target."""
    gradient_norm: Tensor
    targets: int


class Engine:
    """A model with its optimizer, ready to take steps."""

    def __init__(self, model: PreTrainedModel, config: PretrainConfig, total_tokens: int) -> None:
        """Place `model` on the device; `total_tokens` of the whole run decide whether compiling pays."""
        self.config = config
        self.device = device_of(config)
        self.model = model.to(self.device).train()
        self.optimizer = Muon(
            groups_of(model, config.weight_decay, config.optimizer == "muon"), config.learning_rate, BETAS
        )
        self.precision = precision_of(config, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.compiled, self.why = compiles(config, self.device, 6.0 * model.num_parameters() * total_tokens)
        self.nats = torch.compile(self._nats, dynamic=False) if self.compiled else self._nats

    def step(self, batches: list[Batch], learning_rate: float) -> Step:
        """Take one step on the micro-batches of one global batch: the mean over all their targets."""
        targets = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
        total = torch.zeros((), device=self.device)
        for batch in batches:
            loss = self.forward(batch) / targets
            self.scaler.scale(loss).backward()
            total += loss.detach()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Step(total, norm, targets)

    def forward(self, batch: Batch) -> Tensor:
        """Return the summed loss of a batch in nats."""
        there = batch.to(self.device)
        half = HALF.get(self.precision)
        with torch.autocast(self.device.type, dtype=half, enabled=half is not None):
            return self.nats(there.ids, there.targets, there.segments, there.positions)

    def _nats(self, ids: Tensor, targets: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        seen = (segments[:, None, :, None] == segments[:, None, None, :]).tril()
        # Additive from the start: every layer would turn a boolean mask into this one again.
        mask = torch.zeros(seen.shape, device=seen.device, dtype=HALF.get(self.precision)).masked_fill(~seen, -math.inf)
        hidden = self.model.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        logits = self.model.lm_head(hidden).flatten(0, 1).float()
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")


def device_of(config: PretrainConfig) -> torch.device:
    """Return the device; raises StageError where the config asks for what the machine lacks."""
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise StageError("pretrain.device is cuda and no CUDA device is visible: set it to auto or cpu")
    device = torch.device("cuda" if has_gpu and config.device != "cpu" else "cpu")
    if device.type == "cpu" and config.precision == "fp16":
        raise StageError("pretrain.precision fp16 needs a CUDA device: on a CPU use fp32, or bf16 where it has AMX")
    return device


def precision_of(config: PretrainConfig, device: torch.device) -> str:
    """Return the arithmetic of matrix products on `device`: fp32, bf16 or fp16."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def crawls(precision: str, device: torch.device) -> bool:
    """Whether the chip would emulate this arithmetic, many times slower than fp32."""
    has_bf16 = torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16")
    return precision == "bf16" and device.type == "cpu" and not has_bf16


def compiles(config: PretrainConfig, device: torch.device, operations: float) -> tuple[bool, str]:
    """Return whether to compile a run of so many floating-point operations, and why in words."""
    if config.compile != "auto":
        return config.compile == "on", "compiled" if config.compile == "on" else "eager"
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return False, "eager: no C++ compiler here (g++ would let long runs go faster)"
    if operations < WORTH_COMPILING[device.type]:
        return False, f"eager: {operations:.0e} operations are too few to earn back compiling"
    return True, "compiled: the first step takes 20-60 s"
