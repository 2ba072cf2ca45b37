"""grpo on problems as people have them: GSM8K's and SVAMP's formats, through the data stage, to the end."""

from pathlib import Path

import pytest

from containers.contract import Files, Model
from containers.data.contract import DataConfig, DataInputs
from containers.data.main import run as read
from containers.grpo.config import GRPOConfig
from containers.grpo.contract import GRPOInputs
from containers.grpo.main import run
from containers.out import Out
from tests.by_hand import ROOT
from tests.stages.toy_chat import write_model
from tests.stages.toy_pairs import card_of, curve

SHARED = ROOT.parent / "shared" / "data" / "math"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real sample data is not beside the repository")


@needs_shared
@pytest.mark.parametrize("name", ["gsm8k-train.jsonl", "svamp-train.json"])
def test_real_problems_run_to_the_end_with_honest_scores(tmp_path: Path, name: str) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / name).symlink_to(SHARED / name)
    config = DataConfig.model_validate({"sources": [{"path": name, "max_rows": 200}], "pii": "off"})
    files = {"0": Files.of(tmp_path / "files")}
    problems = read(config, DataInputs(role="problems", files=files), Out(tmp_path / "data")).dataset
    policy: Model = write_model(tmp_path / "policy")
    small = GRPOConfig.model_validate({
        "steps": 2, "prompts_per_rollout": 2, "answers_per_prompt": 4, "max_new_tokens": 24, "threads": 1,
        "device": "cpu", "precision": "fp32", "instruction": "Think step by step and end with #### and the answer.",
        "rewards": [{"kind": "answer"}, {"kind": "format", "weight": 0.2}], "validation_rows": 8,
    })  # fmt: skip
    run(small, GRPOInputs(policy=policy, problems=problems), Out(tmp_path / "grpo"))
    card = card_of(tmp_path / "grpo")
    assert card["exact_match_before"] <= 0.25 and card["exact_match"] <= 0.25  # a random model knows nothing
    assert card["problems"] > 50 and len(curve(tmp_path / "grpo", "reward")) >= 2
    assert all(sample["expected"].replace(".", "").replace("-", "").isdigit() for sample in card["samples"])
