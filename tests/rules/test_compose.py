"""The compose file says what the house promises: every stage has its image, nothing is open, nothing is root."""

from typing import Any

import pytest
import yaml

from infra.images import words
from tests.rules.house import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
LONG_LIVED = sorted(name for name, service in SERVICES.items() if service.get("restart") != "no")
BEGIN_AS_ROOT = {"prefect-worker", "serve", "secrets"}
"""They become the owner of the home, or of a new volume."""


@pytest.mark.parametrize("stage", words())
def test_every_stage_has_the_service_that_builds_its_image(stage: str) -> None:
    service = SERVICES[stage]
    assert service["image"] == f"slipway/{stage}:${{SLIPWAY_TAG:-local}}"
    assert service["build"]["args"]["STAGE"] == stage
    assert service["restart"] == "no" and "-c" in service["entrypoint"], "it must end at once"


@pytest.mark.parametrize("name", LONG_LIVED)
def test_a_service_is_healthy_confined_and_on_loopback(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert service.get("user", "") != "0:0" or name in BEGIN_AS_ROOT
    assert "${" in service["image"] and ":-" in service["image"], "the image's tag goes through a variable"
    assert not service["image"].endswith(("latest}", ":-}"))


def test_the_socket_is_the_workers_alone() -> None:
    holders = {n for n, s in SERVICES.items() if any("docker.sock" in str(v) for v in s.get("volumes", ()))}
    assert holders == {"prefect-worker"}


def test_no_secret_is_written_down() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.endswith(":-}") or value.startswith("/run/slipway/"), name


def test_every_variable_is_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text()
    text = (ROOT / "docker-compose.yml").read_text()
    named = {part.split(":-")[0] for part in text.split("${")[1:] if ":-" in part.split("}")[0]}
    missing = sorted(name for name in named - {"SLIPWAY_WHEELS"} if f"#{name}=" not in example)
    assert not missing, missing
