"""The API: OpenAI's routes over one engine, the chat page, health and metrics. Any ASGI server runs it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from containers.contract import StageError
from containers.serve.answers import streamed, whole
from containers.serve.bundle import MANIFEST, Served
from containers.serve.contract import ServeConfig
from containers.serve.engine import Engine, Job
from containers.serve.errors import APIError, answer_errors, of_validation
from containers.serve.frames import Reply
from containers.serve.requests import Body, ChatRequest, CompletionRequest

PAGE = Path(__file__).parent / "page"
MAX_BODY_BYTES = 1 << 20

B = TypeVar("B", bound=Body)


@dataclass
class Desk:
    """What every request needs: the bundle, the engine and the limits."""

    served: Served
    engine: Engine
    config: ServeConfig

    def chat_prompts(self, request: ChatRequest) -> list[list[int]]:
        """Return the conversation's token ids, the assistant's turn opened; control tokens typed by users stay text."""
        try:
            messages = [turn.as_message() for turn in request.messages]
            return [self.served.chat.render(messages, open_turn=True).ids]
        except StageError as error:
            raise APIError(400, str(error), param="messages") from error

    def text_prompts(self, request: CompletionRequest) -> list[list[int]]:
        """Return each prompt's token ids, begun the way the tokenizer begins a document."""
        chat = self.served.chat
        first = chat.token_id("bos_token") if chat.names.get("add_bos_token") else None
        begun = [] if first is None else [first]
        return [begun + chat.encode(p) if isinstance(p, str) else p for p in request.prompts]

    def jobs(self, request: ChatRequest | CompletionRequest, prompts: list[list[int]]) -> list[Job]:
        """Return one job per prompt and choice; raises APIError when a prompt leaves no room for an answer."""
        limit, jobs = self.config.max_tokens, []
        for ids in prompts:
            room = self.engine.context - len(ids)
            if not ids:
                raise APIError(400, "the prompt is empty", param="prompt")
            if room < 1:
                message = f"this model's context is {self.engine.context} tokens, the prompt alone has {len(ids)}"
                raise APIError(400, message, code="context_length_exceeded", param="messages")
            most = min(request.wanted or limit, limit, room)
            for number in range(request.n):
                sampling = request.drawn(number, self.config.temperature) | {"max_tokens": most}
                jobs.append(Job(ids, sampling))
        return jobs


def create_app(folder: Path, settings: Callable[[], ServeConfig]) -> FastAPI:
    """Return the app for the bundle in `folder`; the model is loaded when a server starts it, not before."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        config, served = settings(), Served.open(folder)
        engine = Engine(served.weights, config, served.manifest.context)
        app.state.desk = Desk(served, engine, config)
        yield
        engine.close()

    app = FastAPI(title="Slipway", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app)
    app.add_api_route("/v1/chat/completions", chat_completions, methods=["POST"])
    app.add_api_route("/v1/completions", completions, methods=["POST"])
    app.add_api_route("/v1/models", models)
    app.add_api_route("/v1/models/{name}", model)
    app.add_api_route("/livez", healthy)
    app.add_api_route("/readyz", healthy)
    app.add_api_route("/metrics", metrics)
    app.add_api_route("/v1/{path:path}", nowhere, methods=["GET", "POST"], include_in_schema=False)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    asked = await body_of(request, ChatRequest)
    desk = desk_of(request, asked.model)
    return await reply(request, asked, desk.chat_prompts(asked))


async def completions(request: Request) -> Response:
    """Continue a text."""
    asked = await body_of(request, CompletionRequest)
    desk = desk_of(request, asked.model)
    return await reply(request, asked, desk.text_prompts(asked))


async def reply(request: Request, asked: ChatRequest | CompletionRequest, prompts: list[list[int]]) -> Response:
    """Generate what was asked for, whole or as a stream."""
    desk: Desk = request.app.state.desk
    jobs = desk.jobs(asked, prompts)
    manifest = desk.served.manifest
    growing = Reply(manifest.name, manifest.version, isinstance(asked, ChatRequest), sum(map(len, prompts)), len(jobs))
    growing.stream_usage = asked.stream_options.include_usage
    if asked.stream:
        return await streamed(request, desk.engine.generate(jobs), growing)
    return await whole(request, desk.engine.generate(jobs), growing)


async def models(request: Request) -> JSONResponse:
    """List the one model that is served."""
    return JSONResponse({"object": "list", "data": [described(request.app.state.desk)]})


async def model(request: Request, name: str) -> JSONResponse:
    """Describe one model."""
    return JSONResponse(described(desk_of(request, name)))


async def healthy() -> PlainTextResponse:
    """Say that the model is loaded: a server takes no request before."""
    return PlainTextResponse("ok\n")


async def metrics() -> Response:
    """Return Prometheus metrics."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def nowhere(request: Request) -> None:
    """Refuse the parts of OpenAI's API that are not here."""
    raise APIError(404, f"there is no {request.method} {request.url.path} here")


def desk_of(request: Request, name: str) -> Desk:
    """Return the desk if it has the model called `name`; raises APIError 404."""
    desk: Desk = request.app.state.desk
    known = desk.served.manifest.name
    if name != known:
        raise APIError(404, f"there is no model {name!r} here: use {known!r}", code="model_not_found", param="model")
    return desk


async def body_of(request: Request, kind: type[B]) -> B:
    """Return the checked request body; raises APIError when it is too large, not JSON or not of that kind."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise APIError(415, "send the body as JSON, with the header Content-Type: application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise APIError(413, f"the request body is larger than {MAX_BODY_BYTES} bytes")
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as error:
        raise of_validation(error) from error


def described(desk: Desk) -> dict[str, Any]:
    """Return the model as `/v1/models` lists it, with what the chat page shows of it."""
    manifest = desk.served.manifest
    about = manifest.model_dump(include={"description", "format", "version", "examples"}, mode="json")
    limits = {
        "context": desk.engine.context,
        "max_tokens": desk.config.max_tokens,
        "temperature": desk.config.temperature,
    }
    created = int((desk.served.folder / MANIFEST).stat().st_mtime)
    return {"id": manifest.name, "object": "model", "created": created, "owned_by": "slipway", **about, **limits}
