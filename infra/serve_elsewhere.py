"""A model served by another container: what is to be served is written down in the shared home, and read over there.

python -m infra.serving_host        the other side: serves what is wanted, until it is stopped
"""

import json
import logging
import time
from pathlib import Path

import yaml

from containers.contract import Bundle, Endpoint, Frozen, StageError
from containers.out import write_last
from containers.serve.contract import ServeConfig
from infra.probe import fetch
from infra.settings import Settings

STARTUP_SECONDS = 180
ALIVE_SECONDS = 15
"""A host that has not said for so long that it lives is not there."""
log = logging.getLogger("slipway")


class Wanted(Frozen):
    """<home>/serve/wanted.json."""

    bundle: Bundle
    config: ServeConfig


def wanted(settings: Settings) -> Wanted | None:
    """Return what is to be served."""
    file = settings.home / "serve" / "wanted.json"
    return Wanted.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def want(bundle: Bundle, config: ServeConfig, settings: Settings) -> Endpoint:
    """Write down that `bundle` is to be served, and return once it answers.

    Where no host is up, it will be served as soon as there is one, which a warning says. Raises StageError when the
    host does not get it to answer.
    """
    file = settings.home / "serve" / "wanted.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_last(file, Wanted(bundle=bundle, config=config).model_dump_json(indent=1))
    named = yaml.safe_load((bundle.path / "bento.yaml").read_text(encoding="utf-8"))["name"]
    endpoint = Endpoint(url=str(settings.serve_url), model=named, bundle=bundle.digest)
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if not host_lives(settings):
            log.warning(
                "nothing serves at %s now: start the `serve` profile (README), it will serve this model", endpoint.url
            )
            return endpoint
        told = fetch(f"{settings.serve_url}/version")
        if told and json.loads(told).get("version") == bundle.version:
            return endpoint
        time.sleep(0.5)
    raise StageError(f"{endpoint.url} does not answer with the new bundle; the log of the service `serve` says why")


def host_lives(settings: Settings) -> bool:
    """Whether a host said lately that it serves this home."""
    sign = sign_of_life(settings)
    return sign.is_file() and time.time() - sign.stat().st_mtime < ALIVE_SECONDS


def sign_of_life(settings: Settings) -> Path:
    """Return the file that a host touches every second or so."""
    return settings.home / "serve" / "host"
