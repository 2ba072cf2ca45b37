"""Muon (Jordan et al. 2024): matrices take orthogonalised steps, everything else takes AdamW's.

A step's root mean square is made AdamW's (Liu et al. 2025, "Muon is Scalable for LLM Training", arXiv:2502.16982), so
that one learning rate serves both. torch has a Muon too: it multiplies in bf16, which most CPUs only emulate, and one
matrix at a time; here all matrices of a shape are multiplied at once, in fp32 on a CPU.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz step: singular values from 0.01 up come to lie between 0.7 and 1.2 in ROUNDS."""
ROUNDS = 5
LIKE_ADAM = 0.2
"""Root mean square of a step of AdamW, in learning rates."""


class Muon(torch.optim.AdamW):
    """AdamW whose groups marked `orthogonal` are matrices (m, n) and follow Muon instead."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], weight_decay: float = 0.0):
        """`groups` as `groups_of` makes them."""
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
        self._step_supports_amp_scaling = False  # fp16's scaler must leave out the whole step, not AdamW's part of it

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step and use up the matrices' gradients."""
        for group in self.param_groups:
            if group.get("orthogonal"):
                self.turn(group)
        super().step(closure)

    def turn(self, group: dict[str, Any]) -> None:
        """Step along the orthogonalised momentum of each matrix; AdamW passes over what has no gradient left."""
        shapes: dict[torch.Size, list[Tensor]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                shapes.setdefault(weight.shape, []).append(weight)
        for shape, weights in shapes.items():
            steps = orthogonal(torch.stack([self.momentum(weight) for weight in weights]))
            size = group["lr"] * LIKE_ADAM * math.sqrt(max(shape))
            for weight, step in zip(weights, steps, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(step.to(weight.dtype), alpha=-size)
                weight.grad = None

    def momentum(self, weight: Tensor) -> Tensor:
        """Return Nesterov's momentum of a weight (m, n), its gradient counted in."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
            state["step"] = torch.zeros(())  # AdamW asks for one when it loads its state
        mean = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(mean, MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return the nearest orthogonal matrices, roughly, of a stack (count, m, n), by Newton-Schulz."""
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = wide.to(torch.bfloat16 if wide.is_cuda else torch.float32)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if wide is not matrices else x


def groups_of(model: Any, weight_decay: float, turning: bool) -> list[dict[str, Any]]:
    """Return parameter groups of what trains: matrices decay; norms and biases do not.

    With `turning`, matrices between layers follow Muon; embedding and head, whose rows are tokens (or a score), stay
    with AdamW.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings(), getattr(model, "score", None))
    of_tokens = {id(layer.weight) for layer in ends if layer is not None}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim == 2]
    groups = [
        {
            "params": [weight for weight in matrices if id(weight) not in of_tokens],
            "weight_decay": weight_decay,
            "orthogonal": turning,
        },
        {"params": [weight for weight in matrices if id(weight) in of_tokens], "weight_decay": weight_decay},
        {"params": [weight for weight in trained if weight.ndim != 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
