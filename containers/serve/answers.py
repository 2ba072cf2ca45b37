"""From the engine's pieces to a response: whole or as a stream."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from containers.serve.errors import APIError
from containers.serve.frames import Reply, event
from containers.serve.jobs import EngineError, Piece
from containers.serve.limits import retry_after
from containers.serve.metrics import Stopwatch

Pieces = AsyncGenerator[Piece, None]


async def whole(pieces: Pieces, reply: Reply, watch: Stopwatch) -> Response:
    """Return the finished answers as one JSON object."""
    with refusals(watch):
        async with aclosing(pieces):
            async for piece in pieces:
                watch.text()
                reply.add(piece)
    watch.done(200, reply.usage, len(reply.answers))
    return JSONResponse(reply.whole(), headers={"X-Request-Id": reply.id})


async def streamed(pieces: Pieces, reply: Reply, watch: Stopwatch) -> Response:
    """Return the answers as server-sent events; what goes wrong before the first text is still a plain error."""
    headers, opening = {"Cache-Control": "no-cache", "X-Request-Id": reply.id}, reply.opening()
    with refusals(watch):
        first = await anext(pieces)
    watch.text()
    return EventStream(framed(opening, first, pieces, reply, watch), media_type="text/event-stream", headers=headers)


class EventStream(StreamingResponse):
    """A stream whose source ends it when the client goes away: nothing else has to watch the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        await self.stream_response(send)


async def framed(opening: bytes, first: Piece, pieces: Pieces, reply: Reply, watch: Stopwatch) -> AsyncIterator[bytes]:
    """Yield the events of one stream; closing it (the client left) stops the engine."""
    status = 499
    try:
        async with aclosing(pieces):
            reply.add(first)
            yield opening + reply.frame(first)
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


@contextmanager
def refusals(watch: Stopwatch) -> Iterator[None]:
    """Count what the engine refuses in the block, and raise the APIError that tells the client."""
    try:
        yield
    except EngineError as error:
        watch.done(error.code, {})
        raise of_engine(error) from error


def of_engine(error: EngineError) -> APIError:
    """Return what a client is told."""
    code = {429: "overloaded", 504: "deadline_exceeded"}.get(error.code)
    headers = None if error.retry_seconds is None else retry_after(error.retry_seconds)
    return APIError(error.code, str(error), code=code, headers=headers)
