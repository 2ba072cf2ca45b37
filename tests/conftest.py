"""What every test stands on: a home and a signing key of its own, and signals as a terminal gives them."""

import os
import signal
from pathlib import Path

import pytest

from infra.signing import new_private_key


@pytest.fixture(scope="session", autouse=True)
def home_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the store, the runs and the served model of whoever runs the tests out of their reach."""
    home = tmp_path_factory.mktemp("slipway-home")
    os.environ["SLIPWAY_HOME"] = str(home)
    key = tmp_path_factory.mktemp("signing") / "key.pem"
    key.write_bytes(new_private_key())
    os.environ["SLIPWAY_SIGNING_KEY"] = str(key)
    return home


def pytest_configure() -> None:
    """Heed Ctrl-C in children: a shell that starts the tests in the background has them ignore it, and they inherit."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
