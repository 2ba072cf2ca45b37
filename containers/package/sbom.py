"""The bill of materials (CycloneDX 1.6, JSON): the model, what it was made of, and every package that serves it.

The same inputs give the same bytes: the serial number is drawn from the weights' digest, and there is no timestamp.
"""

import uuid
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from containers.contract import digest_of_file
from containers.package.weights import Weights

FILE = "sbom.cdx.json"
LONGEST_LICENCE = 80
"""Characters; what a package writes into the field of its licence beyond that is the text of one."""
LICENCES = LicenseFactory()


def bill_of_materials(
    name: str, weights: Weights, licences: dict[str, str], pins: tuple[str, ...], adapters: Sequence[Path] = ()
) -> str:
    """Return sbom.cdx.json: the model `name`, the parts in `licences` (part -> licence), the packages in `pins`.

    The files of weights are those of `weights` and the `adapters` beside them.
    """
    bill = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"slipway:{name}:{weights.quantized.digest}"))
    bill.metadata.timestamp = None  # type: ignore[assignment] - the setter's type lacks the absence that 1.6 allows
    model = model_of(name, weights)
    bill.metadata.component = model
    parts = [file_of(file) for file in (*weights.files, *adapters)]
    parts += [part_of(part, licence) for part, licence in sorted(licences.items())]
    parts += [package_of(pin) for pin in pins]
    for part in parts:
        bill.components.add(part)
    bill.register_dependency(model, parts)
    return str(JsonV1Dot6(bill).output_as_string(indent=1)) + "\n"


def model_of(name: str, weights: Weights) -> Component:
    """Return the model itself, with the digest of the 16-bit model that it was made from."""
    made = weights.quantized
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=made.digest[:12],
        description=f"{weights.architecture}, {made.format} ({weights.layout}), of {made.parent[:12]}",
        bom_ref="model",
    )


def file_of(file: Path) -> Component:
    """Return a file of weights, with its sha256."""
    digest = HashType(alg=HashAlgorithm.SHA_256, content=digest_of_file(file))
    return Component(type=ComponentType.FILE, name=file.name, hashes=[digest], bom_ref=f"file:{file.name}")


def part_of(part: str, licence: str) -> Component:
    """Return a base model or a source of data, with the licence that it came under."""
    kind = ComponentType.MACHINE_LEARNING_MODEL if part.startswith("checkpoint") else ComponentType.DATA
    return Component(type=kind, name=part, licenses=[LICENCES.make_from_string(licence)], bom_ref=f"part:{part}")


def package_of(pin: str) -> Component:
    """Return a Python package of the Bento's requirements, `name==version`."""
    name, version = pin.split("==")
    url = PackageURL("pypi", name=name, version=version)
    licence = licence_of(distribution(name).metadata)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=url,
        licenses=[LICENCES.make_from_string(licence)] if licence else [],
        bom_ref=str(url),
    )


def licence_of(metadata: Any) -> str:
    """Return what a package says of its licence: an SPDX expression, a short name or its classifiers; else nothing."""
    written = str(metadata.get("License-Expression") or metadata.get("License") or "").strip()
    if written and len(written) <= LONGEST_LICENCE and "\n" not in written and written != "UNKNOWN":
        return written
    classifiers = metadata.get_all("Classifier") or []
    names = sorted(line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: OSI Approved :: "))
    return ", ".join(names)
