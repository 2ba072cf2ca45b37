"""`slipway export`: a model leaves the store as a Bento, for Ollama and for transformers, and is the same there."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from containers.contract import Bundle, Model, Quantized, Request, Result, digest_of, digest_of_file
from containers.formats import ChatFormat, identity_of
from containers.package.contract import STAGE
from containers.reference import Reference
from containers.signatures import INSIDE, Trust, verify
from infra.launch import Launch, launching
from infra.runners.process import ProcessRunner
from infra.settings import Settings
from infra.signing import own_public_key
from infra.store import Store
from tasks.package import package
from tests.small_bundle import small_quantized, small_scores
from tests.stages.toy_chat import write_model
from tests.unit.test_cli import slipway

QUESTION = [{"role": "user", "content": "Which colour is number 7?"}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def model(home: Settings) -> Model:
    """A model in the store, as sft leaves one."""
    staged = home.home / "staging/model"
    made = write_model(staged / "outputs/model", shape="llama")
    fields = made.model_dump(mode="json", exclude={"path"}) | {"path": "outputs/model"}
    fingerprint = "a" * 64
    request = Request(stage="sft", label="", fingerprint=fingerprint, code="", config={}, inputs={})
    result = Result(
        stage="sft", fingerprint=fingerprint, outputs={"model": fields}, metrics={}, seconds=1, environment={}
    )
    (staged / "request.json").write_text(request.model_dump_json())
    (staged / "result.json").write_text(result.model_dump_json())
    published = Store(home.store).publish(staged)
    return made.revise(path=published.folder / "outputs/model")


@pytest.fixture(scope="module")
def bundle(home: Settings, model: Model) -> Bundle:
    folder = home.home / "quantized"
    shutil.copytree(small_quantized().path, folder)
    Reference.read(folder).revise(parent=model.digest).write(folder)
    quantized = Quantized.of(folder, format="f16", parent=model.digest, **identity_of(folder))
    config = STAGE.config(name="small", licences={"data.corpus: books": "MIT"})
    with launching(Launch(home, Store(home.store), ProcessRunner(home))):
        return package(quantized, (small_scores(),), config)


def address_of(bundle: Bundle) -> str:
    return bundle.path.parent.parent.name


def test_a_bento_carries_its_signature(home: Settings, bundle: Bundle, tmp_path: Path) -> None:
    done = slipway(home.home, "export", "bento", address_of(bundle), str(tmp_path / "bento"))
    assert done.returncode == 0, done.stderr
    verify(tmp_path / "bento", Trust(own_public_key(home), tmp_path / "bento" / INSIDE))
    (tmp_path / "bento" / INSIDE).unlink()
    assert digest_of(tmp_path / "bento") == bundle.digest


def test_ollama_gets_the_weights_and_a_modelfile(home: Settings, bundle: Bundle, tmp_path: Path) -> None:
    done = slipway(home.home, "export", "ollama", address_of(bundle), str(tmp_path / "ollama"))
    assert done.returncode == 0, done.stderr
    assert "ollama create small" in done.stdout
    weights = tmp_path / "ollama/model.gguf"
    assert digest_of_file(weights) == digest_of_file(bundle.path / "src/model/model.gguf")
    text = (tmp_path / "ollama/Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\nTEMPLATE ")
    assert 'PARAMETER stop "<|im_end|>"' in text
    again = slipway(home.home, "export", "ollama", address_of(bundle), str(tmp_path / "ollama"))
    assert again.returncode == 2 and "is not empty: give a new folder" in again.stderr


@pytest.mark.parametrize("named", ["bundle", "model"])
def test_transformers_loads_the_folder_and_it_is_the_same_model(
    home: Settings, bundle: Bundle, model: Model, tmp_path: Path, named: str
) -> None:
    address = address_of(bundle) if named == "bundle" else f"store:{model.path.parent.parent.name}/model"
    folder = tmp_path / "hf"
    done = slipway(home.home, "export", "hf", address, str(folder))
    assert done.returncode == 0, done.stderr
    assert not [file for file in folder.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    assert ids == ChatFormat.load(model.path).render(QUESTION, open_turn=True).ids
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(place, local_files_only=True).eval() for place in (model.path, folder)
    )
    with torch.inference_mode():
        assert torch.equal(ours(torch.tensor([ids])).logits, theirs(torch.tensor([ids])).logits)
    card = (folder / "README.md").read_text()
    assert ("- data.corpus: books: MIT" in card) == (named == "bundle")


def test_a_model_that_was_changed_is_not_exported(home: Settings, model: Model, tmp_path: Path) -> None:
    file = model.path / "generation_config.json"
    kept = file.read_text()
    file.write_text(json.dumps(json.loads(kept) | {"temperature": 9.0}))
    done = slipway(home.home, "export", "hf", f"{model.path.parent.parent.name}/model", str(tmp_path / "hf"))
    file.write_text(kept)
    assert done.returncode == 2
    assert "is not as it was published: `slipway verify` says what changed" in done.stderr
    assert not (tmp_path / "hf").exists()
