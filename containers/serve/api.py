"""The API: OpenAI's routes over one engine, the pages, health and metrics. Any ASGI server runs it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from pathlib import Path
from types import FrameType

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from containers.serve.answers import of_engine, refusals, streamed, whole
from containers.serve.bodies import body_of
from containers.serve.desk import Asked, Desk, Place
from containers.serve.errors import HANDLERS, APIError
from containers.serve.jobs import EngineError
from containers.serve.metrics import REQUESTS
from containers.serve.openapi import Endpoint, Operation, document
from containers.serve.opinions import Feedback, Preference
from containers.serve.requests import ChatRequest, CompletionRequest
from containers.serve.scheduling import take_short_slices

PAGES = Path(__file__).parent / "page"


def create_app(folder: Path, place: Callable[[], Place]) -> Starlette:
    """Return the app for the bundle in `folder`; the model is loaded when a server starts it, not before."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.desk = desk = Desk(folder, place())
        take_short_slices()  # only now: the engine's threads keep theirs
        with draining(desk):
            yield
        desk.engine.close()

    return Starlette(routes=routes(), exception_handlers=HANDLERS, lifespan=lifespan)


def routes() -> list[BaseRoute]:
    """Return all routes, the busiest first; the pages are what no other matches."""
    told = operations()
    described = document(told)

    async def openapi(_: Request) -> JSONResponse:
        return JSONResponse(described)

    return [
        *(Route(o.path, keyed(o.endpoint) if o.keyed else o.endpoint, methods=[o.method]) for o in told),
        Route("/v1/{path:path}", keyed(nowhere), methods=["GET", "POST"]),
        Route("/openapi.json", openapi),
        Mount("/", StaticFiles(directory=PAGES, html=True)),
    ]


def operations() -> list[Operation]:
    """Return what the API does; /v1 asks for a key."""
    text, new = "text/plain", (200, 201)
    return [
        Operation("POST", "/v1/chat/completions", chat_completions, takes=ChatRequest),
        Operation("POST", "/v1/completions", completions, takes=CompletionRequest),
        Operation("POST", "/v1/feedback", feedback, takes=Feedback, statuses=new),
        Operation("POST", "/v1/preferences", preferences, takes=Preference, statuses=new),
        Operation("GET", "/v1/models", models),
        Operation("GET", "/v1/models/{name}", model),
        Operation("GET", "/livez", alive, answers=text),
        Operation("GET", "/readyz", ready, answers=text),
        Operation("GET", "/metrics", metrics, answers=text),
        Operation("GET", "/version", version),
    ]


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


def keyed(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint for those who send a key, whose owner it finds in the state; others get APIError 401."""

    @wraps(endpoint)
    async def admitted(request: Request) -> Response:
        request.state.owner = request.app.state.desk.owner_of(request.headers.get("authorization", ""))
        return await endpoint(request)

    return admitted


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
    with refusals(watch):
        pieces = desk.engine.generate(jobs, partial(departure, request))
    send = streamed if asked.stream else whole
    return await send(pieces, reply, watch)


async def departure(request: Request) -> None:
    """Return when the client has closed the connection (its body has been read before)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def models(request: Request) -> JSONResponse:
    """List what is served: one model, or several that share their weights."""
    desk: Desk = request.app.state.desk
    return JSONResponse({"object": "list", "data": [desk.described(name) for name in desk.served.manifest.models]})


async def model(request: Request) -> JSONResponse:
    """Describe one model."""
    name = request.path_params["name"]
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


async def alive(_: Request) -> PlainTextResponse:
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


async def metrics(_: Request) -> PlainTextResponse:
    """Return Prometheus metrics."""
    return PlainTextResponse(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def nowhere(request: Request) -> Response:
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
