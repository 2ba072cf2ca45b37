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
from infra.runs import commit_of
from infra.settings import ROOT, Settings

CODE_LABEL, STAGE_LABEL = "slipway.code", "slipway.stage"
CODE_FILE = "/slipway/code.txt"
"""Where an image that was built without the label (by `docker compose build`) says what code it holds."""


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
    return image


def code_in(client: Any, image: Any) -> str:
    """Return the hash of the stage code in an image: its label, else what the image itself says; empty for none."""
    return image.labels.get(CODE_LABEL) or written_code(client, image.id)


@lru_cache(maxsize=64)
def written_code(client: Any, image: str) -> str:
    """Return what code.txt in an image says, read from a container that is never started."""
    container = client.containers.create(image)
    try:
        chunks, _ = container.get_archive(CODE_FILE)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            return file.read().decode().strip() if file else ""
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
