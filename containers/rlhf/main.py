"""Learning from a reward model: PPO, our own, or RLOO, TRL's.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

from containers.out import Out
from containers.rlhf.config import Algorithm, PPOConfig
from containers.rlhf.contract import RLHFInputs, RLHFOutputs


def run(config: Algorithm, inputs: RLHFInputs, out: Out) -> RLHFOutputs:
    """Align `inputs.policy` as `config.algorithm` says; raises StageError for inputs that do not belong together.

    Raises Unhealthy when the health guard stops the run.
    """
    if isinstance(config, PPOConfig):
        from containers.rlhf import ppo

        return RLHFOutputs(model=ppo.align(config, inputs, out))
    from containers.rlhf import rloo

    return RLHFOutputs(model=rloo.align(config, inputs, out))
