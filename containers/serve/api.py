"""The API: OpenAI's routes over one engine, the pages, health and metrics. Any ASGI server runs it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from containers.serve.answers import of_engine, streamed, whole
from containers.serve.desk import Asked, Desk, Place
from containers.serve.errors import APIError, answer_errors, of_validation
from containers.serve.jobs import EngineError
from containers.serve.metrics import REQUESTS
from containers.serve.openapi import REFUSALS, describe, takes
from containers.serve.opinions import Feedback, Preference
from containers.serve.requests import Body, ChatRequest, CompletionRequest

PAGES = Path(__file__).parent / "page"
MAX_BODY_BYTES = 1 << 20
BODY_SECONDS = 30
"""A client that takes longer to send its request is refused."""

B = TypeVar("B", bound=Body)


def create_app(folder: Path, place: Callable[[], Place]) -> FastAPI:
    """Return the app for the bundle in `folder`; the model is loaded when a server starts it, not before."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.desk = desk = Desk(folder, place())
        with draining(desk):
            yield
        desk.engine.close()

    app = FastAPI(title="Slipway", lifespan=lifespan, docs_url=None, redoc_url=None)
    answer_errors(app)
    describe(app, [ChatRequest, CompletionRequest, Feedback, Preference])
    for path, endpoint in (("/livez", alive), ("/readyz", ready), ("/metrics", metrics)):
        app.add_api_route(path, endpoint, response_class=PlainTextResponse)
    app.add_api_route("/version", version)
    app.include_router(keyed_routes())
    app.mount("/", StaticFiles(directory=PAGES, html=True))
    return app


def keyed_routes() -> APIRouter:
    """Return the routes that ask for an API key."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(admitted)], responses=REFUSALS)
    posted = (
        ("/chat/completions", chat_completions, ChatRequest),
        ("/completions", completions, CompletionRequest),
        ("/feedback", feedback, Feedback),
        ("/preferences", preferences, Preference),
    )
    for path, endpoint, kind in posted:
        kept = {201: {"description": "Written down."}} if kind in (Feedback, Preference) else {}
        router.add_api_route(path, endpoint, methods=["POST"], responses=kept, openapi_extra=takes(kind))
    router.add_api_route("/models", models)
    router.add_api_route("/models/{name}", model)
    router.add_api_route("/{path:path}", nowhere, methods=["GET", "POST"], include_in_schema=False)
    return router


@contextmanager
def draining(desk: Desk) -> Iterator[None]:
    """On SIGTERM: take no new request, let answers under way end, cut them when their time is up.

    The web server, whose handler is called too, closes its listener and leaves when the last answer is out.
    """
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        desk.engine.drain()
        loop.call_later(desk.config.drain_seconds, desk.engine.cut)

    def told(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def admitted(request: Request) -> None:
    """Note whose key the request comes with; raises APIError 401."""
    request.state.owner = request.app.state.desk.owner_of(request.headers.get("authorization", ""))


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    check_room(request)
    return await answer(request, await body_of(request, ChatRequest))


async def completions(request: Request) -> Response:
    """Continue a text."""
    check_room(request)
    return await answer(request, await body_of(request, CompletionRequest))


def check_room(request: Request) -> None:
    """Refuse at once what would be refused in the end: under overload most requests are, and must cost little."""
    desk: Desk = request.app.state.desk
    try:
        desk.engine.check_room(1)
    except EngineError as error:
        REQUESTS.labels(request.url.path.removeprefix("/v1/").replace("/", "."), error.code).inc()
        raise of_engine(error) from error


async def answer(request: Request, asked: Asked) -> Response:
    """Generate what was asked for, whole or as a stream."""
    desk = desk_of(request, asked.model)
    prompts = desk.prompts(asked)
    jobs = desk.jobs(asked, prompts)
    reply = desk.reply(asked, prompts)
    watch = desk.watch(request.state.owner, reply, jobs)
    send = streamed if asked.stream else whole
    return await send(request, desk.engine.generate(jobs), reply, watch)


async def models(request: Request) -> JSONResponse:
    """List what is served: one model, or several that share their weights."""
    desk: Desk = request.app.state.desk
    return JSONResponse({"object": "list", "data": [desk.described(name) for name in desk.served.manifest.models]})


async def model(request: Request, name: str) -> JSONResponse:
    """Describe one model."""
    return JSONResponse(desk_of(request, name).described(name))


async def feedback(request: Request) -> JSONResponse:
    """Keep a thumb for an answer."""
    return await kept(request, "feedback", await body_of(request, Feedback))


async def preferences(request: Request) -> JSONResponse:
    """Keep which of several answers is better."""
    return await kept(request, "preferences", await body_of(request, Preference))


async def kept(request: Request, kind: str, opinion: Feedback | Preference) -> JSONResponse:
    """Write an opinion down: 201 when it is new, 200 when it was here before."""
    desk: Desk = request.app.state.desk
    identity, new = await desk.ledger.add(kind, request.state.owner, opinion.id, opinion.row())
    return JSONResponse({"id": identity, "object": kind, "new": new}, 201 if new else 200)


async def alive() -> PlainTextResponse:
    """Say that the process runs."""
    return PlainTextResponse("alive\n")


async def ready(request: Request) -> PlainTextResponse:
    """Say whether new requests are taken: 503 while the service drains."""
    stopping = request.app.state.desk.engine.stopping
    return PlainTextResponse("stopping\n" if stopping else "ready\n", 503 if stopping else 200)


async def version(request: Request) -> JSONResponse:
    """Say which model is loaded."""
    manifest = request.app.state.desk.served.manifest
    return JSONResponse({"model": manifest.name, "version": manifest.version})


async def metrics() -> PlainTextResponse:
    """Return Prometheus metrics."""
    return PlainTextResponse(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def nowhere(request: Request) -> None:
    """Refuse the parts of OpenAI's API that are not here."""
    raise APIError(404, f"there is no {request.method} {request.url.path} here")


def desk_of(request: Request, name: str) -> Desk:
    """Return the desk if it has the model called `name`; raises APIError 404."""
    desk: Desk = request.app.state.desk
    known = desk.served.manifest.models
    if name not in known:
        named = " or ".join(map(repr, known))
        raise APIError(404, f"there is no model {name!r} here: use {named}", code="model_not_found", param="model")
    return desk


async def body_of(request: Request, kind: type[B]) -> B:
    """Return the checked request body; raises APIError when it is too large, too slow, not JSON or not of that kind."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise APIError(415, "send the body as JSON, with the header Content-Type: application/json")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await read(request)
    except TimeoutError as error:
        raise APIError(408, f"the request body did not come within {BODY_SECONDS} s") from error
    except ClientDisconnect as error:
        raise APIError(499, "the client closed the connection") from error
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise of_validation(error) from error


async def read(request: Request) -> bytes:
    """Return the body; raises APIError 413 as soon as it is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise APIError(413, f"the request body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)
