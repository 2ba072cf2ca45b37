"""Carry a model out of the store: `slipway export bento`, `ollama`, `hf` and `image`."""

import json
import shutil
from pathlib import Path

from containers.contract import Bundle, Model, StageError, digest_of
from containers.formats import ChatFormat
from containers.model_folder import check_model
from containers.signatures import INSIDE, fingerprint
from flows.serving import bundle_at, packaged
from infra.ancestry import model_in
from infra.bento_image import build_image
from infra.modelfile import WEIGHTS, modelfile_of
from infra.runs import find_run, read_record
from infra.settings import Settings
from infra.signing import check_signature, trust_in
from infra.store import Store

LATEST = "latest"
CARD = """\
# {name}

{description} A folder for Hugging Face transformers, written by Slipway:

    model = AutoModelForCausalLM.from_pretrained("this/folder")
    tokenizer = AutoTokenizer.from_pretrained("this/folder")

These are the {precision} weights before quantization (digest {digest}), with the tokenizer and the chat template
that they were trained with.
{licences}"""


def export_bento(address: str, folder: Path) -> None:
    """Copy a signed bundle with its signature in it, so that it can be served and checked elsewhere."""
    settings, bundle = checked(address)
    shutil.copytree(bundle.path, vacant(folder), dirs_exist_ok=True)
    trust = trust_in(bundle, settings)
    shutil.copyfile(trust.signature, folder / INSIDE)
    print(f"{folder}: serve it as README.md says; it was signed with the key {fingerprint(trust.key)} ({trust.key})")


def export_ollama(address: str, folder: Path) -> None:
    """Write the weights of a bundle, and a Modelfile with its chat template and what ends a turn."""
    _, bundle = checked(address)
    source = bundle.path / "src" / "model"
    if not (source / WEIGHTS).is_file():
        raise StageError(f"{bundle.path} holds no gguf, and Ollama reads nothing else: ship one (`quantize.ship`)")
    manifest = json.loads((bundle.path / "src" / "manifest.json").read_text(encoding="utf-8"))
    if manifest.get("variants"):
        raise StageError(f"{bundle.path} keeps adapters beside its base: package it with `package.adapters=merged`")
    text = modelfile_of(ChatFormat.load(source), manifest["context"])
    copy(source / WEIGHTS, vacant(folder) / WEIGHTS)
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    print(f"{folder}: `cd {folder} && ollama create {manifest['name']}`")


def export_hugging_face(address: str, folder: Path) -> None:
    """Write the 16-bit model of a bundle, or a model of the store, as a folder that transformers loads."""
    settings = Settings()
    store = Store(settings.store)
    if address == LATEST or address.removeprefix("store:").startswith("package-"):
        bundle = checked(address)[1]
        told = json.loads((bundle.path / "src" / "manifest.json").read_text(encoding="utf-8"))
        licences = json.loads((bundle.path / "src" / "provenance.json").read_text(encoding="utf-8"))["licences"]
        write_hugging_face(model_in(store, bundle), folder, told, licences)
    else:
        found = store.artifact(address)
        if not isinstance(found, Model):
            raise StageError(f"{address} holds what is no whole model but of kind {type(found).__name__.lower()}")
        write_hugging_face(found, folder, {"name": address, "description": ""}, {})
    print(f'{folder}: `AutoModelForCausalLM.from_pretrained("{folder}")`')


def export_image(address: str, name: str) -> None:
    """Build an image that serves a bundle: signed, read-only, not as root."""
    settings, bundle = checked(address)
    manifest = json.loads((bundle.path / "src" / "manifest.json").read_text(encoding="utf-8"))
    image = name or f"slipway-{manifest['name'].lower()}:{bundle.version}"
    build_image(bundle, image, settings)
    confined = "--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"
    print(f"{image}: `docker run {confined} -p 127.0.0.1:3000:3000 {image}` serves it; its API key stands in its log")


def write_hugging_face(model: Model, folder: Path, told: dict[str, str], licences: dict[str, str]) -> None:
    """Copy a model whose bytes, tokenizer and template are the recorded ones, with a card; raises StageError."""
    config = check_model(model)
    if digest_of(model.path) != model.digest:
        raise StageError(f"{model.path} is not as it was published: `slipway verify` says what changed")
    vacant(folder)
    for file in sorted(file for file in model.path.rglob("*") if file.is_file()):
        copy(file, folder / file.relative_to(model.path))
    card = CARD.format(
        name=told["name"],
        description=told["description"],
        precision=config.get("dtype") or config.get("torch_dtype") or "stored",
        digest=model.digest[:12],
        licences="".join(["\n## Licences\n\n", *(f"- {part}: {licence}\n" for part, licence in licences.items())])
        if licences
        else "",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def checked(address: str) -> tuple[Settings, Bundle]:
    """Return the bundle at an address (`latest`: that of the newest run), its signature checked; raises StageError."""
    settings = Settings()
    chosen = packaged(read_record(find_run(settings))) if address == LATEST else address
    bundle = bundle_at(chosen, settings)
    check_signature(bundle, settings)
    return settings, bundle


def vacant(folder: Path) -> Path:
    """Return the folder, made if need be; raises StageError where something is in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StageError(f"{folder} is not empty: give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def copy(source: Path, target: Path) -> None:
    """Copy a file of the store; the copy can be written to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)
