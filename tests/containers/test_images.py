"""Stage images: one recipe, one torch layer, one stage and no secret in each."""

import json
import subprocess
from pathlib import Path

import pytest

from containers.code import Code
from infra.failures import BadInput
from infra.git import commit_of
from infra.images import build, code_in, fitting_image, image_name, words
from tests.containers import stand
from tests.rules.house import ROOT, STAGES

CANARY = "canary-5f0c9e1b"
LOOK = """
import importlib.util, json, os, pathlib
rooms = [p.name for p in pathlib.Path("/slipway/containers").iterdir() if p.is_dir() and p.name != "__pycache__"]
print(json.dumps({"stages": rooms, "uid": os.getuid(),
                  "prefect": any(importlib.util.find_spec(n) for n in ("prefect", "mlflow", "docker"))}))
"""


@pytest.mark.timeout(1800)
def test_every_stage_has_an_image_of_the_code_that_lies_here(engine, images):
    for word in words():
        image = fitting_image(engine, word, images)
        assert image.labels["slipway.stage"] == word
        assert image.labels["org.opencontainers.image.title"] == f"slipway/{word}"
        assert len(image.labels["org.opencontainers.image.revision"]) >= 40 or not commit_of(ROOT)
        assert image.attrs["Config"]["User"] == "10001:10001"


@pytest.mark.parametrize("word", words())
def test_an_image_holds_its_own_stage_and_no_orchestrator(engine, images, word):
    said = engine.containers.run(
        image_name(word, images), entrypoint=["python", "-c", LOOK], remove=True, network_mode="none"
    )
    seen = json.loads(said)
    borrowed = {name.split(".")[1] for name in Code(word).parts if name.split(".")[1:2] and "/" not in name}
    assert set(seen["stages"]) & set(STAGES) == borrowed & set(STAGES) and word in seen["stages"]
    assert seen["uid"] == 10001 and not seen["prefect"]


def test_all_images_share_the_layers_of_torch(engine, images):
    found = {word: engine.images.get(image_name(word, images)) for word in words()}
    layers = {word: image.attrs["RootFS"]["Layers"] for word, image in found.items()}
    shared = [layer for layer in layers["sft"] if all(layer in others for others in layers.values())]
    history = found["sft"].history()
    torch = [entry for entry in history if "torch ${PIP_ARGS}" in entry["CreatedBy"]]
    filled = [entry for entry in reversed(history) if entry["Size"] or entry["CreatedBy"].startswith("RUN")]
    assert len(torch) == 1 and torch[0]["Size"] > 2e8
    assert filled.index(torch[0]) < len(shared)
    sizes = {word: image.attrs["Size"] for word, image in found.items()}
    common = sum(entry["Size"] for entry in filled[: len(shared)])
    for word, size in sizes.items():
        print(f"slipway/{word}: {size / 1e6:.0f} MB, of which its own {(size - common) / 1e6:.0f} MB")
    assert max(sizes.values()) < 2 * common


def test_an_absent_image_is_named_with_what_builds_it(engine, images):
    with pytest.raises(BadInput, match=r"no image slipway/sft:nowhere: `make images STAGES=sft`"):
        fitting_image(engine, "sft", images.model_copy(update={"image_tag": "nowhere"}))


def test_an_image_of_other_code_is_refused(engine, images, tmp_path):
    old = tmp_path / "Dockerfile"
    old.write_text(f"FROM {image_name('sft', images)}\nLABEL slipway.code={'0' * 64}\n")
    engine.images.build(path=str(tmp_path), tag="slipway/sft:old", rm=True)
    with pytest.raises(BadInput, match=r"built from other code of sft \(000000000000\).*make images STAGES=sft"):
        fitting_image(engine, "sft", images.model_copy(update={"image_tag": "old"}))
    engine.images.remove("slipway/sft:old")


def test_an_image_of_other_versions_is_refused(engine, images, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image_name('sft', images)}\nUSER root\n"
        "RUN sed -i 's/^trl==.*/trl==0.0.1/' /opt/slipway/versions.txt\nUSER 10001:10001\n"
    )
    engine.images.build(path=str(tmp_path), tag="slipway/sft:versions", rm=True, network_mode="none")
    with pytest.raises(
        BadInput, match=r"other versions than constraints.txt pins \(trl 0.0.1\).*make images STAGES=sft"
    ):
        fitting_image(engine, "sft", images.model_copy(update={"image_tag": "versions"}))
    engine.images.remove("slipway/sft:versions")


def test_an_image_without_the_label_says_itself_what_code_it_holds(engine, images, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM {image_name('sft', images)}\nLABEL slipway.code=\n")
    image, _ = engine.images.build(path=str(tmp_path), tag="slipway/sft:unlabelled", rm=True)
    assert code_in(engine, image) == Code("sft").digest
    engine.images.remove("slipway/sft:unlabelled")


@pytest.mark.timeout(600)
def test_no_secret_of_the_build_enters_a_layer(engine, images, tmp_path, monkeypatch):
    """The build succeeds only with what the secret says: where the wheels are, and that no index is asked."""
    secret = tmp_path / "pip.conf"
    secret.write_text(
        f"[global]\nindex-url = https://user:{CANARY}@index.invalid/simple\nno-index = true\nfind-links = /wheels\n"
    )
    monkeypatch.setenv("PIP_ARGS", "--no-color")
    monkeypatch.setenv("BUILD_ARGS", f"--network=none --secret id=pip,src={secret}")
    monkeypatch.setenv("HF_TOKEN", CANARY)
    settings = images.model_copy(update={"image_tag": "canary"})
    with stand.planted(ROOT / "containers" / "tokenizer" / ".env", f"HF_TOKEN={CANARY}\n"):
        build("tokenizer", settings)
    name = image_name("tokenizer", settings)
    described = subprocess.run(["docker", "history", "--no-trunc", name], capture_output=True, check=True).stdout
    described += subprocess.run(["docker", "inspect", name], capture_output=True, check=True).stdout
    assert CANARY.encode() not in described
    assert not stand.holds(name, CANARY.encode())
    engine.images.remove(name)


def test_the_search_for_secrets_finds_what_is_there(engine, images):
    assert stand.holds(stand.BASE, b"GNU coreutils") or "BASE_IMAGE" in stand.os.environ


def test_a_build_refuses_code_that_is_not_what_the_host_expects(images, monkeypatch, capfd):
    monkeypatch.setattr(Code, "digest", "f" * 64)
    with pytest.raises(SystemExit, match="was not built"):
        build("tokenizer", images.model_copy(update={"image_tag": "wrong"}))
    assert "build again" in "".join(capfd.readouterr())


def test_a_stage_that_compiles_has_a_compiler(engine, images):
    for word in ("pretrain", "sft"):
        said = engine.containers.run(
            image_name(word, images), entrypoint=["sh", "-c", "g++ --version && python3-config --includes"],
            remove=True, network_mode="none",
        )  # fmt: skip
        assert b"g++" in said
        header = said.decode().split("-I")[1].split()[0]
        assert Path(header).name.startswith("python3")
