"""A program with SGLang's command line over our own llama.cpp service: a real endpoint with real tokens.

python engine_program.py SRC serve --model-path FOLDER --host HOST --port PORT --api-key KEY ...
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from containers.serve.api import create_app
from containers.serve.contract import ServeConfig
from containers.serve.desk import Place
from containers.serve.keys import digest_of_key


async def health(_: Request) -> PlainTextResponse:
    return PlainTextResponse("well\n")


def main(source: str, arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    for name in ("model-path", "host", "port", "api-key", "served-model-name", "context-length"):
        parser.add_argument(f"--{name}", required=True)
    given, _ = parser.parse_known_args(arguments)
    assert (Path(given.model_path) / "model.safetensors").is_file()
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        keys.write_text(json.dumps({"engine": [digest_of_key(given.api_key)]}))
        app = create_app(Path(source), lambda: Place(ServeConfig(threads=1, context=int(given.context_length)), keys))
        app.router.routes.insert(0, Route("/health", health))
        uvicorn.run(app, host=given.host, port=int(given.port), log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
