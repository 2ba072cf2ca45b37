"""From the engine's pieces to a response: whole or as a stream."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from containers.serve.errors import APIError
from containers.serve.frames import Reply, event
from containers.serve.jobs import EngineError
from containers.serve.limits import retry_after
from containers.serve.metrics import Stopwatch
from containers.serve.underway import UnderWay


async def whole(pieces: UnderWay, reply: Reply, watch: Stopwatch) -> Response:
    """Return the finished answers as one JSON object."""
    with refusals(watch), closing(pieces):
        async for piece in pieces:
            watch.text()
            reply.add(piece)
    watch.done(200, reply.usage, len(reply.answers))
    return JSONResponse(reply.whole(), headers={"X-Request-Id": reply.id})


async def streamed(pieces: UnderWay, reply: Reply, watch: Stopwatch) -> Response:
    """Return the answers as server-sent events; a request that has to wait, or may be refused, can still get an error.

    The headers of one that will be answered at once leave before the engine begins. With the first token they would
    be a write of their own, for which the client wakes: while the engine has every core, that holds the token up.
    """
    if not pieces.at_once:
        with refusals(watch):
            await pieces.first()
    return EventStream(pieces, reply, watch)


class EventStream(Response):
    """A stream that its source ends when the client goes away: nothing else has to watch the connection."""

    media_type = "text/event-stream"

    def __init__(self, pieces: UnderWay, reply: Reply, watch: Stopwatch) -> None:
        """Prepare all that can be sent before the first piece."""
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-cache", "X-Request-Id": reply.id})
        self._pieces, self._reply, self._watch = pieces, reply, watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an event per piece, the last one together with the end; being cancelled stops the engine."""
        status, reply = 499, self._reply
        try:
            with closing(self._pieces) as pieces:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                told = reply.opening()
                async for piece in pieces:
                    self._watch.text()
                    reply.add(piece)
                    told += reply.frame(piece)
                    if pieces.done:
                        told += reply.closing()
                    if told:
                        await send({"type": "http.response.body", "body": told, "more_body": not pieces.done})
                    told = b""
            status = 200
        except EngineError as error:
            status = error.code
            await send({"type": "http.response.body", "body": event(of_engine(error).body())})
        finally:
            self._watch.done(status, reply.usage, len(reply.answers))


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
