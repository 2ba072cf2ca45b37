"""Errors in the shape that OpenAI's clients expect: {"error": {message, type, param, code}}."""

from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class APIError(Exception):
    """An answer other than 200."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """`code` is the machine's word for it, `param` the field at fault."""
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, headers

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the error object."""
        kind = "server_error" if self.status >= 500 else KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def of_validation(error: ValidationError) -> APIError:
    """Return 400 with the first thing that is wrong and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or None
    message = first["msg"].removeprefix("Value error, ")
    return APIError(400, f"{where}: {message}" if where else message, param=where)


async def known(_: Request, error: APIError) -> JSONResponse:
    """Answer with an error of ours."""
    return JSONResponse(error.body(), error.status, error.headers)


async def routed(_: Request, error: HTTPException) -> JSONResponse:
    """Answer where no route, or none of that method, was found."""
    return JSONResponse(APIError(error.status_code, str(error.detail)).body(), error.status_code, error.headers)


async def unforeseen(_: Request, error: Exception) -> JSONResponse:
    """Answer where the server failed; the error itself goes to its log."""
    return JSONResponse(APIError(500, "the server failed at this request").body(), 500)


HANDLERS: Any = {APIError: known, HTTPException: routed, Exception: unforeseen}
"""How every error leaves in that shape."""
