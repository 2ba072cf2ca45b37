"""What the container tests stand on: an engine, a BuildKit client, a base image and wheels, all made on this machine.

`python -m tests.containers.stand` builds every stage image as the tests do. BASE_IMAGE in the environment names a base
image that is there already, WHEELS an image of wheels.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound

from infra.images import build, words
from infra.settings import Settings
from tests.rules.house import ROOT

TAG = "test"
BASE = "slipway-test/base"
DISTRIBUTION_CLIENT = "/usr/bin/docker"
"""A newer client elsewhere on the path may lack buildx; Debian's own needs none."""


def engine() -> Any:
    """Return a client of the engine, None where none answers."""
    try:
        return docker.from_env(timeout=120)
    except DockerException:
        return None


def builder() -> str:
    """Return a docker client that builds with BuildKit, empty where there is none."""
    found = [client for client in (shutil.which("docker"), DISTRIBUTION_CLIENT) if client and Path(client).exists()]
    return next((client for client in found if has_buildkit(client)), "")


def has_buildkit(client: str) -> bool:
    """Whether `docker build` of this client uses BuildKit: buildx is there, or it is of the versions with their own."""
    said = subprocess.run([client, "buildx", "version"], capture_output=True, text=True, check=False)
    version = subprocess.run([client, "--version"], capture_output=True, text=True, check=False).stdout
    return said.returncode == 0 or int(version.partition("version ")[2].partition(".")[0] or 99) < 23


def base_image(client: Any) -> str:
    """Return the base image: the one that is named, else one made from this machine's packages."""
    if "BASE_IMAGE" in os.environ:
        return os.environ["BASE_IMAGE"]
    try:
        client.images.get(BASE)
    except ImageNotFound:
        subprocess.run([sys.executable, str(Path(__file__).with_name("base_image.py")), BASE], check=True)
    return BASE


def wheels(client: Any) -> str:
    """Return an image that holds every wheel of every stage and of the host, as pip fetches them on this machine."""
    if "WHEELS" in os.environ:
        return os.environ["WHEELS"]
    wanted = b"".join((ROOT / name).read_bytes() for name in ("constraints.txt", "pyproject.toml"))
    name = f"slipway-test/wheels:{hashlib.sha256(wanted).hexdigest()[:12]}"
    try:
        client.images.get(name)
    except ImageNotFound:
        with tempfile.TemporaryDirectory() as folder:
            fetch(Path(folder))
            import_folder(Path(folder), name)
    return name


def fetch(folder: Path) -> None:
    """Put the wheels of all stages, and of the host, into `folder`."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pip = next(line for line in pins if line.startswith("pip=="))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--constraint", "constraints.txt"]
    groups = [word for group in ("stages", "host", "mlflow-server") for word in ("--group", group)]
    older = "async-timeout"  # Of Python before 3.11.3, which a base image may have.
    subprocess.run([*command, *groups, older, "-w", str(folder), pip], cwd=ROOT, check=True)


def import_folder(folder: Path, image: str) -> None:
    """Make an image of a folder's files."""
    importer = subprocess.Popen(["docker", "import", "-", image], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert importer.stdin
    with tarfile.open(fileobj=importer.stdin, mode="w|") as archive:
        archive.add(folder, ".")
    importer.stdin.close()
    assert importer.wait() == 0


def prepare(client: Any) -> Settings:
    """Set the build's environment; return the settings under whose tag the images are built."""
    os.environ.update(
        BASE_IMAGE=base_image(client), WHEELS=wheels(client), DOCKER=builder(),
        PIP_ARGS="--no-index --find-links /wheels", BUILD_ARGS="--network=none --progress=plain",
    )  # fmt: skip
    return Settings(image_tag=TAG)


def built(settings: Settings, *names: str) -> None:
    """Build the images of stages; BuildKit's cache makes it a second where nothing changed."""
    for word in names or words():
        build(word, settings)


def holds(image: str, text: bytes) -> bool:
    """Whether any byte of an image's layers and descriptions is that text."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
        assert saved.stdout
        found, rest = False, b""
        while block := saved.stdout.read(2**22):
            found = found or text in rest + block
            rest = block[-len(text) :]
    return found


@contextmanager
def planted(file: Path, text: str) -> Iterator[None]:
    """Have a file of secrets lie in the source for a while, as people leave them there."""
    assert not file.exists(), f"{file} is somebody's"
    file.write_text(text)
    try:
        yield
    finally:
        file.unlink()


if __name__ == "__main__":
    reached = engine()
    built(prepare(reached), *sys.argv[1:])
