"""The Bento's service: this app under BentoML. The same app runs under any ASGI server.

By hand, from the folder that holds `model/` (src/ of a bundle):  uvicorn containers.serve.service:app
Settings come in SLIPWAY_SERVE as JSON, for example {"slots": 2, "context": 1024}; see ServeConfig.
"""

import os
from pathlib import Path

import bentoml

from containers.serve.api import create_app
from containers.serve.contract import ServeConfig

QUEUE_SECONDS = 600
"""A request that has not begun to answer by then is given up with 504."""
FOLDER = Path(__file__).resolve().parents[2]


def settings() -> ServeConfig:
    """Return what the environment asks for."""
    return ServeConfig.model_validate_json(os.environ.get("SLIPWAY_SERVE", "{}"))


app = create_app(FOLDER, settings)


@bentoml.service(
    name="slipway",
    workers=1,
    traffic={"timeout": QUEUE_SECONDS},
    http={"host": "127.0.0.1"},
    # Bento's own spans, lines and counts wrap every token that is sent; the app counts for itself, in metrics.py
    tracing={"excluded_urls": ".*"},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(app)
class Slipway:
    """An OpenAI-compatible chat model: llama.cpp, its API and a chat page."""
