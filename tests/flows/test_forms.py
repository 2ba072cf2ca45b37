"""The forms that the Prefect UI shows, held to a snapshot: `python -m tests.flows.test_forms` writes it anew."""

import importlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from flows.recipe import recipe_names
from tests.rules.house import ROOT

SNAPSHOT = Path(__file__).with_name("forms.json")
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def form_of(entrypoint: str) -> dict[str, Any]:
    """Return a flow's form as `prefect deploy` registers it."""
    from prefect.utilities.callables import parameter_schema

    module, _, name = entrypoint.rpartition(".")
    return parameter_schema(getattr(importlib.import_module(module), name)).model_dump()


def forms() -> dict[str, Any]:
    return {deployment["name"]: form_of(deployment["entrypoint"]) for deployment in DEPLOYMENTS}


def test_the_forms_are_as_they_were() -> None:
    assert forms() == json.loads(SNAPSHOT.read_text()), "intended? then python -m tests.flows.test_forms"


def test_every_field_says_what_it_is_for() -> None:
    silent = [
        f"{name}.{key}" for name, f in forms().items() for key, p in f["properties"].items() if not p["description"]
    ]
    assert not silent


def test_every_recipe_is_offered_where_it_can_be_run() -> None:
    offered = {name: form["properties"]["recipe_name"]["anyOf"][0]["enum"] for name, form in forms().items()}
    assert sorted(offered["train-llm"] + offered["adapt-model"]) == recipe_names()
    assert offered["retrain"] == offered["release-model"] == recipe_names()


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_what_a_deployment_fills_in_is_right_by_its_form(deployment: dict[str, Any]) -> None:
    form = form_of(deployment["entrypoint"])
    form["required"] = [name for name in form["required"] if name != "model"]
    jsonschema.validate(deployment["parameters"], form)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(deployment["parameters"] | {"recipe_name": "tinny"}, form)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(deployment["parameters"] | {"overrides": ["sft.learning_rate 1e-4"]}, form)


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(forms(), indent=1) + "\n")
