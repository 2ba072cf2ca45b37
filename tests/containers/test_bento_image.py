"""`slipway export image`: a bundle in an image of its own, served read-only and not as root, signature checked."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.bento_image import build_image
from infra.settings import Settings
from tests.small_bundle import KNOWN, small_bundle

IMAGE = "slipway-test/bento:small"
QUESTION = "What is 2+2?"
CONFINED: dict[str, Any] = {
    "read_only": True, "tmpfs": {"/tmp": "mode=1777"}, "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"], "ports": {"3000/tcp": ("127.0.0.1", None)},
}  # fmt: skip


@pytest.fixture(scope="module")
def image(settings: Settings) -> str:
    """The image, built without a network from the wheels of every stage."""
    build_image(small_bundle(), IMAGE, settings)
    return IMAGE


@pytest.fixture
def container(engine: Any, image: str) -> Iterator[Any]:
    running = engine.containers.run(image, detach=True, environment={"SLIPWAY_SERVE": '{"slots": 1}'}, **CONFINED)
    yield running
    running.remove(force=True)


def test_it_answers_read_only_and_not_as_root(engine: Any, container: Any) -> None:
    url = address_once_ready(container)
    key = container.logs().decode().partition("API key of this service is ")[2].split()[0]
    asked = {"model": "small", "messages": [{"role": "user", "content": QUESTION}]}
    answer = httpx.post(
        f"{url}/v1/chat/completions", json=asked, headers={"Authorization": f"Bearer {key}"}, timeout=60
    )
    assert answer.json()["choices"][0]["message"]["content"] == KNOWN[QUESTION]
    assert httpx.post(f"{url}/v1/chat/completions", json=asked).status_code == 401
    assert container.exec_run("id -u").output.strip() == b"10001"
    assert container.exec_run("touch /bento/x").exit_code != 0
    assert "signature is not checked" not in container.logs().decode()


def test_an_image_whose_bundle_was_changed_does_not_serve(engine: Any, image: str, tmp_path: Path) -> None:
    other = tmp_path / "README.md"
    other.write_text("another card")
    volumes = {str(other): {"bind": "/bento/README.md", "mode": "ro"}}
    running = engine.containers.run(image, detach=True, volumes=volumes, **CONFINED)
    try:
        deadline = time.monotonic() + 120
        while b"has changed since the bundle was signed" not in running.logs():
            assert time.monotonic() < deadline, running.logs().decode()
            time.sleep(0.5)
        assert b"README.md has changed since the bundle was signed" in running.logs()
    finally:
        running.remove(force=True)


def address_once_ready(container: Any) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        container.reload()
        assert container.status in ("created", "running"), container.logs().decode()
        port = container.ports["3000/tcp"][0]["HostPort"] if container.ports.get("3000/tcp") else None
        try:
            if port and httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return f"http://127.0.0.1:{port}"
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(container.logs().decode())
