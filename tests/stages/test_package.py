"""package: a Bento that says what it is, twice the same, and refuses what it could not serve."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from containers.code import Code
from containers.contract import Quantized, Scores, StageError, digest_of, digest_of_file
from containers.formats import identity_of
from containers.package.contract import PackageConfig, PackageInputs
from containers.package.weights import LIBRARIES
from containers.requirements import requirements
from containers.serve.bundle import Served
from tests.by_hand import run_by_hand, try_by_hand
from tests.small_bundle import small_bundle, small_quantized


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    folder = tmp_path_factory.mktemp("scores")
    measured = [{"measure": "exact match", "value": 0.875, "low": 0.81, "high": 0.93, "n": 120}]
    (folder / "scores.json").write_text(json.dumps({"measures": measured, "prompts": [], "skipped": 0}))
    return Scores.of(folder, model="chat")


def test_two_runs_in_two_folders_give_equal_bytes(tmp_path: Path, scores: Scores) -> None:
    licences = {"data.corpus: books": "MIT", "data.instructions: talk": "unknown"}
    config = PackageConfig(name="small", licences=licences, provenance={"recipe": "tiny", "git": "0123abc"})
    inputs = PackageInputs(quantized=small_quantized(), scores=(scores,))
    code = Code("package").digest
    first, _ = run_by_hand(tmp_path / "one", "package", config, inputs, code)
    second, _ = run_by_hand(tmp_path / "another", "package", config, inputs, code)
    assert first.bundle.digest == second.bundle.digest == digest_of(second.bundle.path)
    assert first.bundle.version == second.bundle.version


def test_the_card_and_the_provenance_tell_what_the_run_measured(tmp_path: Path, scores: Scores) -> None:
    config = PackageConfig(name="small", limits="Not for medicine.", provenance={"recipe": "tiny", "git": "0123abc"})
    inputs = PackageInputs(quantized=small_quantized(), scores=(scores,))
    outputs, result = run_by_hand(tmp_path, "package", config, inputs)
    card = (outputs.bundle.path / "README.md").read_text()
    for told in ("# small", "0123abc", "0.875", "[0.81, 0.93]", "120", "Not for medicine.", "bentoml serve"):
        assert told in card
    provenance = json.loads((outputs.bundle.path / "src/provenance.json").read_text())
    assert provenance["recipe"] == "tiny"
    assert provenance["quantized"]["digest"] == small_quantized().digest
    assert provenance["scores"] == {"chat": scores.digest}
    assert result.metrics["bytes"] > result.metrics["weights_bytes"] > 0


def test_provenance_stays_outside_of_the_fingerprint() -> None:
    schema = PackageConfig.model_fields["provenance"].json_schema_extra
    assert schema == {"affects_result": False}


def test_a_pickle_is_not_packaged(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(small_quantized().path, folder)
    (folder / "notes").mkdir()
    (folder / "notes/scales.PKL").write_bytes(b"")
    quantized = Quantized.of(folder, format="f16", parent="0" * 64, **identity_of(folder))
    failed, errors = try_by_hand(tmp_path / "run", "package", PackageConfig(), PackageInputs(quantized=quantized))
    assert failed == 2
    assert "scales.PKL is a pickle" in errors


def test_the_bill_of_materials_is_valid_and_names_every_part(tmp_path: Path) -> None:
    licences = {"checkpoint: own/base": "apache-2.0", "data.corpus: books": "unknown", "data.corpus: talk": "MIT"}
    config = PackageConfig(name="small", licences=licences)
    outputs, _ = run_by_hand(tmp_path, "package", config, PackageInputs(quantized=small_quantized()))
    src = outputs.bundle.path / "src"
    text = (src / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert "timestamp" not in bill["metadata"]
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", "small")
    (weights,) = (part for part in bill["components"] if part["type"] == "file")
    assert weights["name"] == "model.gguf"
    assert weights["hashes"] == [{"alg": "SHA-256", "content": digest_of_file(src / "model/model.gguf")}]
    parts = {part["name"]: part for part in bill["components"]}
    assert parts["checkpoint: own/base"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert parts["data.corpus: books"]["licenses"] == [{"license": {"name": "unknown"}}]
    pins = [line for line in (outputs.bundle.path / "env/python/requirements.txt").read_text().split() if "==" in line]
    assert {pin for part in parts.values() if (pin := f"{part['name']}=={part.get('version')}") in pins} == set(pins)
    assert parts["xllamacpp"]["purl"].startswith("pkg:pypi/xllamacpp@")
    assert sum("licenses" in part for part in parts.values()) > 0.9 * len(parts)
    edges = {edge["ref"]: edge.get("dependsOn", []) for edge in bill["dependencies"]}
    assert len(edges["model"]) == len(parts)
    assert "| checkpoint: own/base | apache-2.0 |" in (src / "model_card.md").read_text()
    assert json.loads((src / "provenance.json").read_text())["licences"] == licences


def test_the_bundle_holds_one_copy_of_the_model_and_no_link() -> None:
    files = list(small_bundle().path.rglob("*"))
    assert [f.name for f in files if f.suffix == ".gguf"] == ["model.gguf"]
    assert not [f for f in files if f.is_symlink() or f.suffix == ".pyc"]


def test_requirements_are_pinned_and_enough() -> None:
    lines = (small_bundle().path / "env/python/requirements.txt").read_text().split()
    names = {line.split("==")[0] for line in lines if "==" in line}
    assert {"bentoml", "xllamacpp", "tokenizers", "jinja2", "starlette", "prometheus-client", "pydantic"} <= names
    assert not {"torch", "transformers", "prefect", "mlflow"} & names


def test_a_folder_is_packaged_with_what_its_engine_needs() -> None:
    bundle = small_bundle("bf16").path
    assert (bundle / "src/model/model.safetensors").is_file() and not list(bundle.rglob("*.gguf"))
    lines = (bundle / "env/python/requirements.txt").read_text()
    assert "\ntransformers==" in lines and "\ntorch==" in lines and "xllamacpp" not in lines
    assert "| format | bf16 (safetensors, " in (bundle / "README.md").read_text()


def test_the_stage_has_every_library_that_a_format_is_read_with() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    groups = tomllib.loads(project.read_text())["dependency-groups"]
    named = {line.split(";")[0] for line in requirements("package", groups)}
    assert {
        name for libraries in LIBRARIES.values() for name in libraries
    } <= named  # else its image could not say which versions serve them


def test_a_pickle_is_never_packaged(tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(small_quantized("bf16").path, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    quantized = Quantized.of(folder, format="bf16", parent="0" * 64, **identity_of(folder))
    failed, errors = try_by_hand(tmp_path / "run", "package", PackageConfig(), PackageInputs(quantized=quantized))
    assert failed == 2
    assert "pytorch_model.bin is a pickle" in errors


def test_weights_that_would_not_stop_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "endless"
    shutil.copytree(small_quantized().path, folder)
    names = folder / "tokenizer_config.json"
    names.write_text(names.read_text().replace("<|endoftext|>", "<|im_start|>", 1))
    quantized = Quantized.of(folder, format="f16", parent="0" * 64, **identity_of(folder))
    failed, errors = try_by_hand(tmp_path / "run", "package", PackageConfig(), PackageInputs(quantized=quantized))
    assert failed == 2
    assert "trained to stop at token ids [1]" in errors


def test_a_template_other_than_the_recorded_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "swapped"
    shutil.copytree(small_quantized().path, folder)
    quantized = small_quantized().revise(path=folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    failed, errors = try_by_hand(tmp_path / "run", "package", PackageConfig(), PackageInputs(quantized=quantized))
    assert failed == 2
    assert "template beside the weights is not the recorded one" in errors


def swap_template(src: Path) -> None:
    file = src / "model/chat_template.jinja"
    file.write_text(file.read_text().replace("assistant", "oracle"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swap_template, "the template is not the one this model was trained with"),
        (lambda src: flip(src / "model/model.gguf"), "model.gguf has changed"),
        (lambda src: flip(src / "containers/serve/api.py"), "api.py has changed"),
        (lambda src: (src / "model/more.bin").write_text("x"), "more.bin was added"),
        (lambda src: (src / "provenance.json").unlink(), "provenance.json is missing"),
    ],
    ids=["template", "weights", "code", "added", "missing"],
)
def test_a_bundle_that_was_changed_is_not_opened(tmp_path: Path, change: object, said: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(small_bundle().path, folder)
    assert Served.open(folder / "src").manifest.name == "small"
    change(folder / "src")  # type: ignore[operator]
    with pytest.raises(StageError, match=said):
        Served.open(folder / "src")
