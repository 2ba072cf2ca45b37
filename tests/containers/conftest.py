"""Every test here needs a Docker engine and a BuildKit client, and says so where there is none."""

from typing import Any

import pytest

from infra.settings import Settings
from tests.containers import stand


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/containers/" in item.path.as_posix():
            item.add_marker(pytest.mark.containers)


@pytest.fixture(scope="session")
def engine() -> Any:
    client = stand.engine()
    if client is None:
        pytest.skip("no Docker engine answers: start one (dockerd) to run the container tests")
    if not stand.builder():
        pytest.skip("no docker client with BuildKit: install buildx or Debian's docker.io")
    return client


@pytest.fixture(scope="session")
def settings(engine: Any) -> Settings:
    return stand.prepare(engine)


@pytest.fixture(scope="session")
def images(settings: Settings) -> Settings:
    stand.built(settings)
    return settings
