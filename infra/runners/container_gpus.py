"""The GPUs that a Docker engine gives to containers, and what to say where it gives none."""

import re
from functools import lru_cache
from typing import Any

from docker.errors import APIError
from docker.types import DeviceRequest

from infra.failures import BadInput, StageFailed
from infra.gpus import listed
from infra.images import STAGE_LABEL
from infra.settings import Settings

SIGNS = ("could not select device driver", "nvidia-container-cli", "unknown device", "CDI", "nvidia-smi")
"""What an engine's refusal of a GPU holds."""


def gpus_of(client: Any, settings: Settings) -> tuple[str, ...]:
    """Return the UUIDs of the GPUs that containers can have; raises BadInput where only the host has any.

    The engine is asked, in a container that lists them: this process may itself be in one, without the driver.
    """
    given, refused = asked(client, settings.image_tag)
    if refused and listed():
        raise no_driver("this machine has a GPU, but", refused)
    return given


@lru_cache(maxsize=8)
def asked(client: Any, tag: str) -> tuple[tuple[str, ...], str]:
    """Return the UUIDs that `nvidia-smi -L` lists in a container with all GPUs, and the reason why there are none."""
    images = client.images.list(filters={"label": STAGE_LABEL})
    names = [name for image in images for name in image.tags if name.endswith(f":{tag}")]
    if not names:
        return (), "there is no stage image to ask it with"
    container = client.containers.create(
        names[0], entrypoint=["nvidia-smi", "-L"], network_mode="none", read_only=True, cap_drop=["ALL"],
        device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])],
    )  # fmt: skip
    try:
        container.start()
        container.wait()
        said = container.logs(stderr=False).decode()
    except APIError as error:
        return (), str(error.explanation)
    finally:
        container.remove(force=True)
    return tuple(re.findall(r"UUID: (GPU-[0-9a-f-]+)", said)), ""


def refusal(word: str, reason: str) -> Exception:
    """Return what to raise for a container that the engine could not start."""
    if any(sign in reason for sign in SIGNS):
        return no_driver(f"{word}:", reason)
    return StageFailed(f"{word}: its container did not start: {reason.strip()}")


def no_driver(what: str, reason: str) -> BadInput:
    """Return the error for an engine that gives no GPU to containers."""
    return BadInput(
        f"{what} the Docker engine gives no GPU to containers ({reason.strip()}): install the NVIDIA driver and the "
        "NVIDIA Container Toolkit, run `nvidia-ctk runtime configure` and restart Docker; or say `device: cpu`"
    )
