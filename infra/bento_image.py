"""A signed bundle as an image that serves it: the Bento, its requirements, the key that must have signed it."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from containers.contract import Bundle, StageError
from containers.signatures import INSIDE
from infra.settings import ROOT, Settings
from infra.signing import trust_in

KEY = "trusted.pem"
ARGUMENTS = ("BASE_IMAGE", "WHEELS", "PIP_ARGS")
"""Taken from the environment, as `make images` takes them."""


def build_image(bundle: Bundle, name: str, settings: Settings) -> None:
    """Build the image `name` with BuildKit; raises StageError where it cannot be built."""
    trust = trust_in(bundle, settings)
    context = settings.home / "staging" / f"image-{bundle.version}"
    shutil.rmtree(context, ignore_errors=True)
    try:
        shutil.copytree(bundle.path, context, copy_function=linked)
        shutil.copyfile(trust.signature, context / INSIDE)
        shutil.copyfile(trust.key, context / KEY)
        build(context, name)
    finally:
        shutil.rmtree(context, ignore_errors=True)


def build(context: Path, name: str) -> None:
    """Run `docker build`; pip's configuration and other options come in BUILD_ARGS."""
    given = [f"--build-arg={argument}={os.environ[argument]}" for argument in ARGUMENTS if argument in os.environ]
    command = [
        os.environ.get("DOCKER", "docker"), "build", *shlex.split(os.environ.get("BUILD_ARGS", "")),
        "--file", str(ROOT / "infra" / "bento.Dockerfile"), *given, "--tag", name, str(context),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False)
    except FileNotFoundError as error:
        raise StageError(f"there is no {command[0]}: install Docker, or name its client in DOCKER") from error
    if done.returncode:
        raise StageError(
            f"{name} was not built: see above (a Docker engine and BuildKit are needed; BASE_IMAGE names another base)"
        )


def linked(source: str, target: str) -> None:
    """Link a file of the store instead of copying it, where the disk is the same one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
