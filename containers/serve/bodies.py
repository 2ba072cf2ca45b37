"""Request bodies: read with bounds, and checked."""

import asyncio
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from containers.serve.errors import APIError, of_validation
from containers.serve.requests import Body

MAX_BODY_BYTES = 1 << 20
BODY_SECONDS = 30
"""A client that takes longer to send its request is refused."""

B = TypeVar("B", bound=Body)


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
