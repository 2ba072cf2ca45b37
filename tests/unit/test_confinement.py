"""What the stage's user of a container may read, where the caller is root."""

import os
from pathlib import Path

import pytest

from infra.runners.confinement import STAGE_USER, given_to_stage
from infra.settings import Settings


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs stages as somebody else")
def test_artifacts_become_readable_and_a_persons_files_stay_as_they_are(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    folder, artifact, own = (
        settings.home / "staging/sft",
        settings.home / "store/pretrain/outputs/model",
        tmp_path / "own",
    )
    for place in (folder / "inputs", artifact / "inner", own):
        place.mkdir(parents=True)
    for file in (artifact / "inner/model.safetensors", own / "text.txt"):
        file.write_text("x")
        file.chmod(0o600)
    (artifact / "inner").chmod(0o700)
    (folder / "inputs/model").symlink_to(artifact)
    (folder / "inputs/text").symlink_to(own)
    given_to_stage(folder, settings)
    assert (artifact / "inner").stat().st_mode & 0o005 == 0o005
    assert (artifact / "inner/model.safetensors").stat().st_mode & 0o777 == 0o644
    assert (own / "text.txt").stat().st_mode & 0o777 == 0o600
    assert (folder / "inputs").stat().st_uid == STAGE_USER and artifact.stat().st_uid == 0
