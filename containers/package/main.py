"""Build the Bento: one copy of the model, the service that answers with it, and what is known about both.

    bento.yaml  README.md  env/  apis/       written by BentoML; README.md is the model card
    src/containers/                          the service (containers/serve) and the formats that it shares with training
    src/model/                               the weights and their tokenizer, template beside it
    src/adapters/                            LoRA adapters of these weights, where a run keeps them unmerged
    src/model_card.md  src/provenance.json   what it is, how it was made
    src/sbom.cdx.json                        the bill of materials (CycloneDX)
    src/manifest.json                        identity, and size and sha256 of every file in src/

`bentoml serve FOLDER` serves it, without Slipway. The same inputs give the same bytes.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from containers import serve
from containers.contract import Bundle
from containers.out import Out
from containers.package.beside import check_adapters, link, variants_of
from containers.package.card import ModelCard
from containers.package.contract import PackageConfig, PackageInputs, PackageOutputs
from containers.package.parity import Proof, prove
from containers.package.requirements import pinned
from containers.package.sbom import FILE, bill_of_materials
from containers.package.weights import Weights
from containers.serve.bundle import ADAPTERS, MANIFEST, MODEL, Manifest, inventory

FORMATS = ("__init__.py", "contract.py", "formats.py", "quantized_folder.py", "signatures.py", "sockets.py")
"""What the service shares with training."""
ROOTS = (
    "bentoml",
    "llguidance",
    "model-signing",
    "pyopenssl",
    "tokenizers",
    "jinja2",
    "prometheus-client",
    "starlette",
    "uvloop",
    "httptools",
)
"""What the service imports beside its engine, and what makes uvicorn fast; their pinned versions and those of their
dependencies are the Bento's requirements."""
OUTSIDE = "1980-01-01T00:00:00+00:00"
"""Stands where BentoML writes the time of the build."""


def run(config: PackageConfig, inputs: PackageInputs, out: Out) -> PackageOutputs:
    """Build the bundle; raises StageError for weights that no engine here serves."""
    weights = Weights.of(inputs.quantized)
    check_adapters(config, inputs, weights)
    context = out.work / "context"
    shutil.rmtree(context, ignore_errors=True)
    card = ModelCard(config, weights, inputs.scores, variants_of(config.name, inputs.adapters))
    pins = pinned((*ROOTS, *weights.engine))
    provenance = provenance_of(config, inputs, weights, pins)
    out.progress(0, 3, "steps")
    lay_out(context, inputs, card.text(), provenance)
    manifest = describe(context, card, pins)
    out.progress(1, 3, "steps")
    built = build(context, manifest, pins, out.work / "bentoml")
    out.progress(2, 3, "steps")
    bundle = out.artifact("bundle")
    shutil.copytree(built, bundle, dirs_exist_ok=True)
    clean(bundle)
    proofs = prove(bundle / "src", inputs.quantized.parent, config, out.progress) if config.prove_parity else {}
    size = sum(f.stat().st_size for f in bundle.rglob("*") if f.is_file())
    out.record(bytes=size, weights_bytes=weights.bytes)
    out.write_card(
        name=manifest.name,
        version=manifest.version,
        format=manifest.format,
        bytes=size,
        context=manifest.context,
        files=len(manifest.files),
        licences=config.licences,
        parity=proofs[config.name].model_dump() if proofs else "not proven: package.prove_parity is off",
        models={name: proof.model_dump() for name, proof in proofs.items()} if inputs.adapters else {},
        model_card=card.text(),
        provenance=provenance,
    )
    out.progress(3, 3, "steps")
    out.say(f"{manifest.name}:{manifest.version}, {manifest.format}, {size / 1e6:.1f} MB")
    tell(config.name, proofs, out)
    return PackageOutputs(bundle=Bundle.of(bundle, version=manifest.version))


def tell(main: str, proofs: dict[str, Proof], out: Out) -> None:
    """Say what the proof of each model came to, and record the `main` one's."""
    if not proofs:
        out.say("the bundle was not compared with its 16-bit model: package.prove_parity is off", level="warning")
        return
    for name, proof in proofs.items():
        out.say(f"{name} as in transformers: {said(proof)}")
    first = proofs[main]
    out.record(parity_chats=first.chats, parity_mean_nats=first.mean_nats, parity_answers_equal=first.answers_equal)


def said(proof: Proof) -> str:
    """Return a proof in a few words."""
    return (
        f"token ids of {proof.chats} chats ({proof.ids_as_transformers} by its own tokenizer), "
        f"{proof.answers_equal} greedy answers, "
        f"log-probabilities {proof.mean_nats:.4f} nats apart on average (allowed: {proof.allowed_mean_nats:g})"
    )


def lay_out(context: Path, inputs: PackageInputs, card: str, provenance: dict[str, Any]) -> None:
    """Write the folder that becomes src/; the model is only linked, so that the bundle gets its one copy."""
    service, program = Path(serve.__file__).parent, context / "containers"
    shutil.copytree(service, program / service.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FORMATS:
        shutil.copyfile(service.parent / name, program / name)
    link(inputs.quantized.path, context / MODEL)
    if inputs.adapters:
        link(inputs.adapters.path, context / ADAPTERS)
    (context / "model_card.md").write_text(card, encoding="utf-8")
    write_json(context / "provenance.json", provenance)


def describe(context: Path, card: ModelCard, pins: tuple[str, ...]) -> Manifest:
    """Write the bill of materials and the manifest; return the manifest, whose version is the digest of it all."""
    config, weights, quantized = card.config, card.weights, card.weights.quantized
    adapters = sorted((context / ADAPTERS).glob("*.gguf"))
    bill = bill_of_materials(config.name, weights, config.licences, pins, adapters)
    (context / FILE).write_text(bill, encoding="utf-8")
    manifest = Manifest(
        name=config.name,
        version="",
        description=config.description,
        format=quantized.format,
        context=weights.context,
        tokenizer=quantized.tokenizer,
        template=quantized.template,
        stop_ids=quantized.stop_ids,
        examples=config.examples,
        files=inventory(context),
        scores=card.scored(),
        variants=card.variants,
    )
    manifest = manifest.revise(version=manifest.digest[:12])
    write_json(context / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def provenance_of(
    config: PackageConfig, inputs: PackageInputs, weights: Weights, pins: Sequence[str]
) -> dict[str, Any]:
    """Return where the model comes from: what the flow knows, and the digests of what was put together here."""
    quantized = inputs.quantized
    return {
        **config.provenance,
        "quantized": {"digest": quantized.digest, "format": quantized.format, "parent": quantized.parent},
        "adapters": inputs.adapters.digest if inputs.adapters else None,
        "identity": quantized.model_dump(mode="json", include={"tokenizer", "template", "stop_ids"}),
        "scores": {s.model: s.digest for s in inputs.scores},
        "architecture": weights.architecture,
        "licences": config.licences,
        "versions": dict(line.split("==") for line in pins),
    }


def build(context: Path, manifest: Manifest, pins: Sequence[str], home: Path) -> Path:
    """Return the Bento's folder below `home`, built from `context` without a network."""
    shutil.rmtree(home, ignore_errors=True)
    for name in ("tmp", "bentos"):
        (home / name).mkdir(parents=True)
    # Read by BentoML when it is imported or first used, which must therefore come after.
    os.environ.update(BENTOML_HOME=str(home), BENTOML_DO_NOT_TRACK="True")
    import bentoml

    bento = bentoml.build(
        "containers.serve.service:Slipway",
        name=manifest.name,
        version=manifest.version,
        labels={"format": manifest.format},
        description=(context / "model_card.md").read_text(encoding="utf-8"),
        include=["*"],
        python={"packages": list(pins), "lock_packages": False},
        build_ctx=str(context),
    )
    return Path(bento.path)


def clean(bundle: Path) -> None:
    """Take out of the bundle what differs between two builds (clock, byte code), and BentoML's copy of its options."""
    (bundle / "src/bentofile.yaml").unlink()
    for cache in sorted(bundle.rglob("__pycache__")):
        shutil.rmtree(cache)
    record = bundle / "bento.yaml"
    lines = record.read_text(encoding="utf-8").splitlines()
    fixed = [f"creation_time: '{OUTSIDE}'" if line.startswith("creation_time:") else line for line in lines]
    record.write_text("\n".join(fixed) + "\n", encoding="utf-8")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` with sorted keys."""
    path.write_text(json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
