"""From the engine's pieces to a response: whole or as a stream, ended when the client goes away."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from containers.serve.errors import APIError
from containers.serve.frames import Reply, event
from containers.serve.jobs import EngineError, Piece
from containers.serve.limits import retry_after
from containers.serve.metrics import Stopwatch

T = TypeVar("T")
Pieces = AsyncGenerator[Piece, None]


async def whole(request: Request, pieces: Pieces, reply: Reply, watch: Stopwatch) -> Response:
    """Return the finished answers as one JSON object."""

    async def collect() -> None:
        async with aclosing(pieces):
            async for piece in pieces:
                watch.text()
                reply.add(piece)

    await while_connected(request, collect(), watch)
    watch.done(200, reply.usage, len(reply.answers))
    return JSONResponse(reply.whole(), headers={"X-Request-Id": reply.id})


async def streamed(request: Request, pieces: Pieces, reply: Reply, watch: Stopwatch) -> Response:
    """Return the answers as server-sent events; what goes wrong before the first text is still a plain error."""
    first = await while_connected(request, anext(pieces), watch)
    watch.text()
    headers = {"Cache-Control": "no-cache", "X-Request-Id": reply.id}
    return StreamingResponse(framed(first, pieces, reply, watch), media_type="text/event-stream", headers=headers)


async def framed(first: Piece, pieces: Pieces, reply: Reply, watch: Stopwatch) -> AsyncIterator[bytes]:
    """Yield the events of one stream; closing it (the client left) stops the engine."""
    status = 499
    try:
        async with aclosing(pieces):
            reply.add(first)
            yield reply.opening() + reply.frame(first)
            async for piece in pieces:
                reply.add(piece)
                yield reply.frame(piece)
        yield reply.closing()
        status = 200
    except EngineError as error:
        status = error.code
        yield event(of_engine(error).body())
    finally:
        watch.done(status, reply.usage, len(reply.answers))


async def while_connected(request: Request, work: Coroutine[Any, Any, T], watch: Stopwatch) -> T:
    """Return the result of `work`, which is given up when the client goes away; raises APIError."""
    doing, left = asyncio.ensure_future(work), asyncio.ensure_future(departure(request))
    try:
        await asyncio.wait((doing, left), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise EngineError("the client closed the connection", 499)
        return doing.result()
    except EngineError as error:
        watch.done(error.code, {})
        raise of_engine(error) from error
    finally:
        left.cancel()
        doing.cancel()
        await asyncio.gather(doing, left, return_exceptions=True)


def of_engine(error: EngineError) -> APIError:
    """Return what a client is told."""
    code = {429: "overloaded", 504: "deadline_exceeded"}.get(error.code)
    headers = None if error.retry_seconds is None else retry_after(error.retry_seconds)
    return APIError(error.code, str(error), code=code, headers=headers)


async def departure(request: Request) -> None:
    """Return when the client has closed the connection (its body has been read before)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
