"""The report's words about a run: how to make it again."""

from infra.report.writing import reproduce
from infra.runs import RunRecord


def record(**arguments: object) -> RunRecord:
    return RunRecord(run="mine-1", recipe="mine", began=0.0, git="c0ffee", config={}, arguments=arguments)


def test_the_command_that_makes_a_run_again_names_its_file_and_its_changes() -> None:
    changed = record(recipe_name="my recipes/mine.yaml", overrides=("sft.epochs=2", "sft.method=lora"))
    assert reproduce(changed).splitlines() == [
        "git checkout c0ffee", "make setup", "./slipway run 'my recipes/mine.yaml' sft.epochs=2 sft.method=lora",
    ]  # fmt: skip
    assert reproduce(record()).endswith("./slipway run mine")
