"""A PPO run on disk: everything that the next update depends on, committed or absent."""

import shutil
from typing import Any

import torch

from containers.checkpoints import commit, newest
from containers.out import Out
from containers.rlhf.advantages import RunningScale
from containers.rlhf.held_out import HeldOut

FILE = "state.pt"


def keep(trainer: Any, held_out: HeldOut, out: Out, update: int) -> None:
    """Write and commit a checkpoint, then remove older ones."""
    folder = out.work / f"checkpoint-{update}"
    folder.mkdir(exist_ok=True)
    state = {
        "trained": trained_in(trainer.policy.model),
        "head": trainer.actor.head.state_dict(),
        "optimizer": trainer.improver.optimizer.state_dict(),
        "scaler": trainer.improver.scaler.state_dict(),
        "scale": trainer.scale.state_dict(),
        "kl_coefficient": trainer.kl_coefficient,
        "guard": trainer.guard.state_dict(),
        "held_out": held_out.state_dict(),
        "recorded": out.recorded,
    }
    torch.save(state, folder / FILE)
    commit(folder, update)
    for other in out.work.glob("checkpoint-*"):
        if other != folder:
            shutil.rmtree(other)


def restore(trainer: Any, held_out: HeldOut, out: Out) -> int:
    """Go on from the newest committed checkpoint; return how many updates it holds, 0 where there is none."""
    found = newest(out.work)
    if not found:
        return 0
    update, folder = found
    out.say(f"going on from update {update} of {trainer.config.updates}")
    state = torch.load(folder / FILE, map_location=trainer.policy.device, weights_only=True)
    trainer.policy.model.load_state_dict(state["trained"], strict=False)
    trainer.actor.head.load_state_dict(state["head"])
    trainer.improver.optimizer.load_state_dict(state["optimizer"])
    trainer.improver.scaler.load_state_dict(state["scaler"])
    trainer.scale = RunningScale(**state["scale"])
    trainer.kl_coefficient = state["kl_coefficient"]
    trainer.guard.load_state_dict(state["guard"])
    held_out.load_state_dict(state["held_out"])
    out.record(**state["recorded"])
    return update


def trained_in(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights that are trained, by name: all of them, or an adapter's."""
    return {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}
