"""A served model and a browser, for every page."""

from collections.abc import Iterator

import pytest

from containers.contract import Endpoint
from containers.serve.contract import ServeConfig
from containers.sockets import free_port
from infra.keys import local_key
from infra.service import start_service, stop_service
from infra.settings import Settings
from tests.small_bundle import small_bundle
from tests.ui.browser import Browser


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="session")
def endpoint(settings: Settings) -> Iterator[Endpoint]:
    yield start_service(small_bundle(), ServeConfig(port=free_port(), slots=2, threads=1), settings)
    stop_service(settings)


@pytest.fixture(scope="session")
def key(settings: Settings, endpoint: Endpoint) -> str:
    return local_key(settings)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
