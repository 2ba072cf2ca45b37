"""Imports point one way: flows -> tasks -> infra -> containers.contract."""

import pytest

from tests.rules.house import STAGES, imported, name_of, sources

FORBIDDEN = {
    "tasks": ("flows",),
    "infra": ("flows", "tasks"),
    "containers": ("flows", "tasks", "infra", "prefect", "mlflow", "docker"),
}
BORROWS = {"package": {"serve"}, "certify": {"sft"}, "convert": {"quantize"}}
"""A bundle holds the service's code, so that code is part of what package makes; certify shows what sft will prove;
convert writes an adapter's matrices as quantize writes those of its base."""


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_nothing_from_above_it(room: str) -> None:
    wrong = [
        f"{name_of(file)} imports {name}"
        for file in sources(room)
        for name in sorted(imported(file))
        if name.split(".")[0] in FORBIDDEN[room]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ["flows", "tasks", "infra"])
def test_outside_only_contracts_of_the_inside_are_known(room: str) -> None:
    wrong = []
    for file in sources(room):
        for name in sorted(imported(file)):
            room_of, stage, module = (*name.split("."), "", "")[:3]
            if room_of == "containers" and stage in STAGES and module not in ("", "contract"):
                wrong.append(f"{name_of(file)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_a_stage_knows_no_other_stage() -> None:
    wrong = []
    for stage in STAGES:
        for file in sources(f"containers/{stage}"):
            others = {n.split(".")[1] for n in imported(file) if n.startswith("containers.")} & set(STAGES)
            others -= {stage, *BORROWS.get(stage, ())}
            wrong += [f"{name_of(file)} imports containers.{other}" for other in sorted(others)]
    assert not wrong, "\n".join(wrong)
