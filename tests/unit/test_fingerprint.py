"""What changes a fingerprint, and what does not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from pydantic import Field

from containers.contract import Config, Dataset, Files, Frozen, Stage, aside
from infra.fingerprint import components, differences, fingerprint_of, pinned_versions, what_matters


class Full(Config):
    method: Literal["full"] = "full"
    rate: float = 1e-3
    log_every: int = aside(10)


class Lora(Config):
    method: Literal["lora"] = "lora"
    rank: int = 8
    rate: float = 1e-3
    log_every: int = aside(10)


class Source(Config):
    path: str | None = aside(None)
    weight: float = 1.0


class ProbeConfig(Config):
    tuning: Full | Lora = Field(default=Full(), discriminator="method")
    sources: tuple[Source, ...] = (Source(),)
    named: dict[str, Source] = Field(default_factory=dict)
    seed: int = 0
    workers: int = aside(2)


class ProbeInputs(Frozen):
    role: str = "corpus"
    text: Dataset
    more: tuple[Dataset, ...] = ()
    files: dict[str, Files] = Field(default_factory=dict)


CODE = SimpleNamespace(parts={"containers.sft.main": "a" * 64, "containers.contract": "b" * 64})


STAGE = Stage("sft", ProbeConfig, ProbeInputs, ProbeInputs)


def dataset(path: str = "/here", digest: str = "d1", rows: int = 3) -> Dataset:
    return Dataset(path=Path(path), digest=digest, role="corpus", rows={"train": rows})


CONFIG = ProbeConfig()
INPUTS = ProbeInputs(text=dataset())


def fingerprint(config: Config = CONFIG, inputs: Frozen = INPUTS, code: object = CODE) -> str:
    return fingerprint_of(components(STAGE, config, inputs, code))


@pytest.mark.parametrize(
    "same",
    [
        ProbeConfig(workers=8),
        ProbeConfig(tuning=Full(log_every=99)),
        ProbeConfig(sources=(Source(path="/elsewhere"),)),
        ProbeConfig(seed=0, tuning={"method": "full", "rate": 0.001}),
    ],
)
def test_fields_set_aside_change_nothing(same):
    assert fingerprint(same) == fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        ProbeConfig(seed=1),
        ProbeConfig(tuning=Full(rate=2e-3)),
        ProbeConfig(tuning=Lora()),
        ProbeConfig(sources=(Source(weight=2),)),
        ProbeConfig(sources=(Source(), Source())),
        ProbeConfig(named={"a": Source()}),
    ],
)
def test_every_other_field_changes_it(other):
    assert fingerprint(other) != fingerprint()


def test_where_an_input_lies_changes_nothing_and_what_it_holds_does():
    assert fingerprint(inputs=ProbeInputs(text=dataset("/there"))) == fingerprint()
    assert fingerprint(inputs=ProbeInputs(text=dataset(digest="d2"))) != fingerprint()
    assert fingerprint(inputs=ProbeInputs(text=dataset(), role="problems")) != fingerprint()
    files = {"0": Files(path=Path("/a"), digest="f")}
    elsewhere = {"0": Files(path=Path("/b"), digest="f")}
    assert fingerprint(inputs=ProbeInputs(text=dataset(), files=files)) != fingerprint()
    assert fingerprint(inputs=ProbeInputs(text=dataset(), files=files)) == fingerprint(
        inputs=ProbeInputs(text=dataset(), files=elsewhere)
    )


def test_the_order_of_inputs_counts():
    one, two = dataset(digest="d1"), dataset(digest="d2")
    assert fingerprint(inputs=ProbeInputs(text=one, more=(one, two))) != fingerprint(
        inputs=ProbeInputs(text=one, more=(two, one))
    )


def test_an_input_of_unknown_content_is_refused():
    with pytest.raises(ValueError, match="no digest"):
        fingerprint(inputs=ProbeInputs(text=dataset(digest="")))


def test_a_fingerprint_is_the_same_in_every_process():
    """It names folders on disk: a change of how it is made silently runs everything again, so it is pinned here."""
    parts = {"stage": "sft", "config": {"rate": 1e-4, "names": ["\u00e9"]}, "inputs": {}, "code": {}, "versions": {}}
    assert fingerprint_of(parts) == "21a4859e9c5c612d16e28d096f727779294c1c7cb0137d8eba88ab73eaeab537"


def test_differences_are_named_field_by_field():
    other = SimpleNamespace(parts={**CODE.parts, "containers.sft.main": "c" * 64})
    old = components(STAGE, CONFIG, INPUTS, CODE)
    new = components(STAGE, ProbeConfig(tuning=Full(rate=2e-3)), ProbeInputs(text=dataset(digest="d2")), other)
    assert differences(old, new) == [
        ("code.containers.sft.main", "a" * 64, "c" * 64),
        ("config.tuning.rate", 1e-3, 2e-3),
        ("inputs.text.digest", "d1", "d2"),
    ]
    assert differences(old, old) == []


def test_versions_are_those_of_the_group_and_the_groups_in_it(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[dependency-groups]\na = ["Torch>=2", {include-group = "b"}]\nb = ["ruamel_yaml[all]"]\nc = ["rich"]\n'
    )
    (tmp_path / "constraints.txt").write_text("# pins\ntorch==2.1  # why\nruamel-yaml==3\nrich==4\n")
    assert pinned_versions("a", tmp_path) == {"torch": "2.1", "ruamel-yaml": "3"}
    (tmp_path / "constraints.txt").write_text("torch==2.2\nruamel-yaml==3\nrich==4\n")
    assert pinned_versions("a", tmp_path)["torch"] == "2.2"


def test_every_stage_has_its_versions():
    assert {"torch", "trl", "pydantic"} <= pinned_versions("sft").keys()


def test_sets_are_ordered():
    class Bag(Config):
        words: frozenset[str] = frozenset("zyx")

    assert what_matters(Bag()) == {"words": ["x", "y", "z"]}
