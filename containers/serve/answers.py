"""From the engine's pieces to a response: whole or as a stream, ended when the client goes away."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from containers.serve.engine import EngineError, Piece
from containers.serve.errors import APIError
from containers.serve.frames import Reply, event
from containers.serve.metrics import Stopwatch

T = TypeVar("T")
Pieces = AsyncGenerator[Piece, None]


async def whole(request: Request, pieces: Pieces, reply: Reply) -> Response:
    """Return the finished answers as one JSON object."""
    watch = Stopwatch(reply.endpoint)

    async def collect() -> None:
        async with aclosing(pieces):
            async for piece in pieces:
                watch.text()
                reply.add(piece)

    await while_connected(request, collect(), watch)
    watch.done(200, reply.usage)
    return JSONResponse(reply.whole())


async def streamed(request: Request, pieces: Pieces, reply: Reply) -> Response:
    """Return the answers as server-sent events; what goes wrong before the first text is still a plain error."""
    watch = Stopwatch(reply.endpoint)
    first = await while_connected(request, anext(pieces), watch)
    watch.text()
    return StreamingResponse(
        framed(first, pieces, reply, watch), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


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
        yield event(APIError(error.code, str(error)).body())
    finally:
        watch.done(status, reply.usage)


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
        raise APIError(error.code, str(error)) from error
    finally:
        left.cancel()
        doing.cancel()
        await asyncio.gather(doing, left, return_exceptions=True)


async def departure(request: Request) -> None:
    """Return when the client has closed the connection (its body has been read before)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
