"""A home of its own for each module that serves something; what it serves is stopped in the end."""

from collections.abc import Iterator

import pytest

from infra.service import stop_service
from infra.settings import Settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    yield settings
    stop_service(settings)
