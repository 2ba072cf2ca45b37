"""Read, clean and split one role's sources."""

from containers.contract import Dataset, Role
from containers.data.contract import STAGE, DataConfig, DataInputs
from infra.orchestration import stage_task
from infra.sources import pinned, pinned_dataset, resolve
from infra.stage_runner import run_stage


@stage_task
def data(role: Role, config: DataConfig, held_out: tuple[Dataset, ...] = ()) -> Dataset:
    """Turn files, hub names and builtin worlds into one clean dataset; keep the test rows of `held_out` out of it."""
    finished = pinned_dataset(config, role)
    if finished:
        return finished
    inputs = DataInputs(role=role, files=resolve(config, role), held_out=held_out)
    return run_stage(STAGE, pinned(config), inputs, label=role).dataset
