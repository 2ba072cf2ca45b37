"""The Bento's service: this app under BentoML. The same app runs under any ASGI server.

By hand, from the folder that holds `model/` (src/ of a bundle):  uvicorn containers.serve.service:app
Settings come in SLIPWAY_SERVE as JSON, for example {"slots": 2, "context": 1024}; see ServeConfig. SLIPWAY_KEYS names
the file of API keys (without it one is made and printed), SLIPWAY_FEEDBACK the folder that feedback is written to,
SLIPWAY_TRUSTED_KEY the public key that must have signed the bundle (SLIPWAY_SIGNATURE; model.sig in it by default).
"""

import os
import sys
from pathlib import Path

import bentoml

from containers.serve.api import create_app
from containers.serve.contract import ServeConfig
from containers.serve.desk import Place
from containers.signatures import INSIDE, Trust

FIRST_BYTE_SECONDS = 3660
"""BentoML's own limit, kept out of the way of ServeConfig.deadline_seconds, which is an hour at most."""
FOLDER = Path(__file__).resolve().parents[2]


def place() -> Place:
    """Return what the environment asks for."""
    keys, feedback = (os.environ.get(name) for name in ("SLIPWAY_KEYS", "SLIPWAY_FEEDBACK"))
    return Place(
        config=ServeConfig.model_validate_json(os.environ.get("SLIPWAY_SERVE", "{}")),
        keys=Path(keys) if keys else None,
        feedback=Path(feedback) if feedback else None,
        trust=trust(),
    )


def trust() -> Trust | None:
    """Return the signature that the environment asks of the bundle, None (said on stderr) where it names no key."""
    key, signature = (os.environ.get(name) for name in ("SLIPWAY_TRUSTED_KEY", "SLIPWAY_SIGNATURE"))
    if key:
        return Trust(Path(key), Path(signature) if signature else FOLDER.parent / INSIDE)
    print(
        "Slipway: the bundle's signature is not checked, SLIPWAY_TRUSTED_KEY names no key", file=sys.stderr, flush=True
    )
    return None


app = create_app(FOLDER, place)


@bentoml.service(
    name="slipway",
    workers=1,
    traffic={"timeout": FIRST_BYTE_SECONDS},
    http={"host": "127.0.0.1"},
    # Bento's own spans, lines and counts wrap every token that is sent; the app counts for itself, in metrics.py
    tracing={"excluded_urls": ".*"},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(app)
class Slipway:
    """An OpenAI-compatible chat model: llama.cpp, its API and its pages."""

    async def __is_ready__(self) -> bool:
        """Say whether new requests are taken, for BentoML's /readyz, which stands before the app's own."""
        return not app.state.desk.engine.stopping
