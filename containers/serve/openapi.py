"""The OpenAPI document: what every route takes and answers, made from the models that check requests."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

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
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": meaning,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    for status, meaning in (("4XX", "The request is at fault, or over a limit."), ("5XX", "The server is at fault."))
}


def takes(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the part of a route's description that says what its body holds."""
    content = {"application/json": {"schema": {"$ref": PLACE.format(model=kind.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, kinds: list[type[BaseModel]]) -> None:
    """Have `app` answer /openapi.json with all of its routes and the models in `kinds`."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, schemas = models_json_schema([(kind, "validation") for kind in kinds], ref_template=PLACE)
            made["components"] = {
                "schemas": schemas["$defs"] | {"Error": ERROR},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            }
            for path, operations in made["paths"].items():
                if path.startswith("/v1/"):
                    for operation in operations.values():
                        operation["security"] = [{"key": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
