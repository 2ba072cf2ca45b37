"""What a stage's container may see, use and do."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount

from containers.contract import Stage
from infra.doctor import usable_memory
from infra.runners import GPU
from infra.runners.environment import MACHINE, caches
from infra.settings import Settings

HOME_LABEL, FOLDER_LABEL = "slipway.home", "slipway.folder"
RUNNING_LABEL, GPU_LABEL = "slipway.running", "slipway.gpu"
STAGE_USER = 10001
"""Who a stage is when its caller is root: never root itself."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
GIB = 2**30


def options(
    settings: Settings, folder: Path, stage: Stage[Any, Any, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return the options of a stage's container, for `client.containers.create`."""
    memory = int(settings.container_memory_gib * GIB) if settings.container_memory_gib else usable_memory() * 9 // 10
    gpu = environment.get(GPU, "")
    return {
        "user": "{}:{}".format(*identity()),
        "working_dir": str(folder / "work"),
        "environment": inside(settings, environment),
        "mounts": list(mounts(settings, folder, environment if stage.fetches else {})),
        "labels": {
            HOME_LABEL: str(settings.home.absolute()),
            FOLDER_LABEL: str(folder),
            RUNNING_LABEL: stage.word,
            **({GPU_LABEL: gpu} if gpu else {}),
        },
        "device_requests": [DeviceRequest(device_ids=[gpu], capabilities=[["gpu"]])] if gpu else None,
        "network_mode": settings.docker_network if stage.fetches else "none",
        "read_only": True,
        "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "mem_limit": memory,
        "memswap_limit": memory,
        "pids_limit": settings.container_pids,
        "shm_size": int(settings.container_shm_gib * GIB),
        "log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "1"}),
    }


def identity() -> tuple[int, int]:
    """Return the user and group of a stage: the caller's, and for root STAGE_USER."""
    return (os.getuid(), os.getgid()) if os.getuid() else (STAGE_USER, STAGE_USER)


def cache_of(settings: Settings) -> Path:
    """Return the folder of what containers download and compile, outside of every artifact."""
    return settings.home.absolute() / "cache" / "containers"


def given_to_stage(folder: Path, settings: Settings) -> None:
    """Make the mount points, and give them (with all they hold) to the stage's user where the caller is root.

    Inputs that stages of root's own processes made (some libraries write 0600) are made readable, a person's files not.
    """
    cache = cache_of(settings)
    cache.mkdir(parents=True, exist_ok=True)
    if os.getuid():
        return
    os.chown(cache, *identity())
    for place in (folder, *folder.rglob("*")):
        os.chown(place, *identity(), follow_symlinks=False)
    for link in (folder / "inputs").iterdir():
        if (artifact := link.resolve()).is_relative_to(settings.home.resolve()):
            make_readable(artifact)


def make_readable(artifact: Path) -> None:
    """Let everybody read an artifact and enter its folders."""
    for place in (artifact, *artifact.rglob("*")):
        if not place.is_symlink():
            place.chmod(place.stat().st_mode | (0o555 if place.is_dir() else 0o444))


def inside(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return a stage's environment as it is in a container: nothing of this machine's programs, caches mounted."""
    outer = {name: value for name, value in environment.items() if name not in (*MACHINE, "PYTHONPATH", GPU)}
    cache = cache_of(settings)
    return {**outer, **caches(cache), "HOME": str(cache), "USER": "slipway"}


def mounts(settings: Settings, folder: Path, environment: Mapping[str, str]) -> Iterator[Mount]:
    """Yield the stage folder and the caches (writable), inputs and certificates (only to be read): paths as outside."""
    cache = str(cache_of(settings))
    yield Mount(str(folder), str(folder), type="bind")
    yield Mount(cache, cache, type="bind")
    read: dict[str, str] = {}
    for link in sorted((folder / "inputs").iterdir()):
        target = link.readlink()
        read[str(target)] = str(target.resolve())
        read.update({str(file): str(file.resolve()) for file in linked_from(target)})
    read.update(
        {environment[name]: str(Path(environment[name]).resolve()) for name in CERTIFICATES if name in environment}
    )
    yield from (Mount(inner, outer, type="bind", read_only=True) for inner, outer in read.items())


def linked_from(artifact: Path) -> Iterator[Path]:
    """Yield the files outside of an artifact that its links lead to: a person's own files stay where they are."""
    if artifact.is_dir():
        yield from sorted({link.readlink() for link in artifact.rglob("*") if link.is_symlink()})
