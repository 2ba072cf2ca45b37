"""A stage is one word everywhere; this names whatever a new one forgot."""

import tomllib

import pytest

from tests.rules.house import ROOT, STAGES

HOST_TASKS = ("serve",)
"""Stages whose program runs inside the bundle, not through run_stage."""


def group_names() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"])


def test_the_house_has_stages() -> None:
    assert {"data", "tokenizer", "pretrain", "sft", "merge", "evaluate", "quantize", "package", "serve"} <= set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_all_its_places(stage: str) -> None:
    tests = [f"tests/stages/test_{stage}.py", f"tests/flows/test_{stage}.py"]
    wanted = [f"containers/{stage}/__init__.py", f"tasks/{stage}.py"]
    wanted += [] if stage in HOST_TASKS else [f"containers/{stage}/main.py"]
    missing = [path for path in wanted if not (ROOT / path).is_file()]
    missing += [] if any((ROOT / t).is_file() for t in tests) else [tests[0]]
    missing += [] if stage in group_names() else [f"dependency group {stage!r} in pyproject.toml"]
    missing += (
        []
        if f"| `{stage}` |" in (ROOT / "README.md").read_text()
        else [f"README.md: a row `{stage}` in the stage table"]
    )
    assert not missing, f"stage {stage!r} lacks: {', '.join(missing)}"


@pytest.mark.parametrize("stage", [s for s in STAGES if s not in HOST_TASKS])
def test_a_stage_says_what_it_is(stage: str) -> None:
    contract = __import__(f"containers.{stage}.contract", fromlist=["STAGE"])
    assert contract.STAGE.word == stage
    undocumented = [
        f"{model.__name__}.{name}"
        for model in vars(contract).values()
        if isinstance(model, type) and model.__module__ == contract.__name__ and hasattr(model, "model_fields")
        for name, field in model.model_fields.items()
        if model.__name__.endswith("Config") and name not in ("kind",) and not field.description
    ]
    assert not undocumented, f"no docstring under: {', '.join(undocumented)}"
