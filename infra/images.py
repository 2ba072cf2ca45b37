"""Stage images: what they are called, whose code is in them, and how they are built.

Build all of them (`make images`), or some:  python -m infra.images [STAGE ...]
An image holds one stage: `slipway/<stage>:<tag>`, with the hash of its code as the label `slipway.code`.
"""

import io
import os
import shlex
import subprocess
import sys
import tarfile
from functools import lru_cache
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound

from containers.code import Code
from infra.failures import BadInput
from infra.fingerprint import normalised, pinned_versions
from infra.git import commit_of
from infra.settings import ROOT, Settings

CODE_LABEL, STAGE_LABEL = "slipway.code", "slipway.stage"
CODE_FILE, VERSIONS_FILE = "/slipway/code.txt", "/opt/slipway/versions.txt"
"""Where an image itself says what code (without the label: `docker compose build` knows none) and packages it holds."""


def connect(settings: Settings) -> Any:
    """Return a client of the Docker engine; raises BadInput where none answers."""
    try:
        return docker.from_env(timeout=settings.docker_timeout_seconds)
    except DockerException as error:
        where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        raise BadInput(
            f"no Docker engine answers at {where} ({root_of(error)}): start it (and belong to its group), "
            "or run stages as processes with SLIPWAY_RUNNER=process"
        ) from error


def root_of(error: BaseException) -> str:
    """Return the first cause of an error, in its own words."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"


def image_name(word: str, settings: Settings) -> str:
    """Return the name of a stage's image."""
    return f"slipway/{word}:{settings.image_tag}"


def fitting_image(client: Any, word: str, settings: Settings) -> Any:
    """Return the stage's image; raises BadInput, naming the command that mends it, where it is absent or stale."""
    name = image_name(word, settings)
    try:
        image = client.images.get(name)
    except ImageNotFound:
        raise BadInput(f"there is no image {name}: `make images STAGES={word}` builds it") from None
    inside, here = code_in(client, image), Code(word).digest
    if inside != here:
        raise BadInput(
            f"the image {name} was built from other code of {word} ({inside[:12] or 'unknown'}) than lies here "
            f"({here[:12]}): `make images STAGES={word}` builds it anew"
        )
    pinned, installed = pinned_versions(word), versions_in(client, image)
    other = [
        f"{package} {installed.get(package)}"
        for package, version in pinned.items()
        if installed.get(package) != version
    ]
    if other:
        raise BadInput(
            f"the image {name} holds other versions than constraints.txt pins ({', '.join(other[:3])}): "
            f"`make images STAGES={word}` builds it anew"
        )
    return image


def code_in(client: Any, image: Any) -> str:
    """Return the hash of the stage code in an image: its label, else what the image itself says; empty for none."""
    return image.labels.get(CODE_LABEL) or written(client, image.id, CODE_FILE).strip()


def versions_in(client: Any, image: Any) -> dict[str, str]:
    """Return package -> version of what is installed in an image, builds of a version (`+cpu`) not told apart."""
    lines = written(client, image.id, VERSIONS_FILE).splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {normalised(package): version.split("+")[0] for package, version in pairs}


@lru_cache(maxsize=128)
def written(client: Any, image: str, path: str) -> str:
    """Return a file of an image, read from a container that is never started; empty where there is none."""
    container = client.containers.create(image)
    try:
        chunks, _ = container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            return file.read().decode() if file else ""
    except APIError:
        return ""
    finally:
        container.remove(force=True)


def words() -> list[str]:
    """Return every stage that has a program of its own."""
    return sorted(file.parent.name for file in (ROOT / "containers").glob("*/main.py"))


def build(word: str, settings: Settings) -> None:
    """Build a stage's image with BuildKit; raises SystemExit with the builder's code where it fails."""
    arguments = {
        "STAGE": word,
        "CODE": Code(word).digest,
        "REVISION": commit_of(ROOT) or "unknown",
        **{name: os.environ[name] for name in ("BASE_IMAGE", "WHEELS", "PIP_ARGS") if name in os.environ},
    }
    given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    name = image_name(word, settings)
    command = [
        os.environ.get("DOCKER", "docker"), "build", *shlex.split(os.environ.get("BUILD_ARGS", "")),
        "--file", "containers/Dockerfile", *given, "--tag", name, ".",
    ]  # fmt: skip
    print(f"building {name}", flush=True)
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False)
    if done.returncode:
        raise SystemExit(f"{name} was not built: see above (BuildKit is needed: Docker >= 20.10, with buildx from 23)")


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(words())
    if unknown:
        raise SystemExit(f"no such stage: {', '.join(sorted(unknown))}; there are: {', '.join(words())}")
    for each in sys.argv[1:] or words():
        build(each, Settings())
