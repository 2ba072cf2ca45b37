"""The OpenAPI document: what every route takes and answers, made from the models that check requests."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Awaitable[Response]]

PLACE = "#/components/schemas/{model}"
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
REFUSALS = {
    status: {
        "description": meaning,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    for status, meaning in (("4XX", "The request is at fault, or over a limit."), ("5XX", "The server is at fault."))
}


@dataclass(frozen=True)
class Operation:
    """A route as it is served, and as the document tells of it."""

    method: str
    path: str
    endpoint: Endpoint
    takes: type[BaseModel] | None = None
    """What checks its body."""
    answers: str = "application/json"
    statuses: tuple[int, ...] = (200,)
    """How it answers where nothing is wrong."""

    @property
    def keyed(self) -> bool:
        """Whether it asks for a key."""
        return self.path.startswith("/v1/")

    def described(self) -> dict[str, Any]:
        """Return what the document says of it."""
        name = self.endpoint.__name__
        schema: dict[str, Any] = {} if self.answers == "application/json" else {"type": "string"}
        done = {"description": "Done.", "content": {self.answers: {"schema": schema}}}
        about: dict[str, Any] = {
            "operationId": name,
            "summary": name.replace("_", " ").capitalize(),
            "description": self.endpoint.__doc__,
            "responses": {str(status): done for status in self.statuses},
        }
        names = re.findall(r"{(\w+)}", self.path)
        if names:
            text = {"type": "string"}
            about["parameters"] = [{"in": "path", "name": name, "required": True, "schema": text} for name in names]
        if self.takes:
            place = {"$ref": PLACE.format(model=self.takes.__name__)}
            about["requestBody"] = {"required": True, "content": {"application/json": {"schema": place}}}
        if self.keyed:
            about["responses"] |= REFUSALS
            about["security"] = [{"key": []}]
        return about


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document, of OpenAPI 3.1."""
    kinds = [operation.takes for operation in operations if operation.takes]
    _, schemas = models_json_schema([(kind, "validation") for kind in kinds], ref_template=PLACE)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Slipway", "version": "1"},
        "paths": {operation.path: {operation.method.lower(): operation.described()} for operation in operations},
        "components": {
            "schemas": schemas["$defs"] | {"Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
