"""What is wrong with a recipe, said so that a person can mend it: file:line, the key, the nearest right name."""

import difflib
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Path = tuple[str, ...]


def explain(error: ValidationError, recipe: type[BaseModel], file: str, lines: dict[Path, int]) -> Iterator[str]:
    """Yield one line per mistake; `lines` maps the path of a key to its line in `file`."""
    for detail in error.errors(include_url=False):
        path = tuple(str(part) for part in detail["loc"])
        written = tuple(part for i, part in enumerate(path) if is_written(path, i, lines))
        line = next((lines[written[:n]] for n in range(len(written), 0, -1) if written[:n] in lines), 1)
        yield f"{file}:{line}: {'.'.join(written) or 'recipe'}: {message(detail, path, recipe)}"


def is_written(path: Path, index: int, lines: dict[Path, int]) -> bool:
    """Whether a part of an error's location is a key that a person writes, not the tag of a union's member."""
    return path[: index + 1] in lines or path[:index] not in lines or index == len(path) - 1


def message(detail: ErrorDetails, path: Path, recipe: type[BaseModel]) -> str:
    """Return what is wrong with one key, with the nearest right name for an unknown one."""
    if detail["type"] != "extra_forbidden":
        return detail["msg"].removeprefix("Value error, ").replace("Input should be", "should be", 1)
    known = sorted({name for model in models_at(recipe, path[:-1]) for name in model.model_fields})
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    return f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; known here: {', '.join(known)}"


def models_at(model: type[BaseModel], path: Path) -> list[type[BaseModel]]:
    """Return the models that the settings at `path` may have, from the root `model` down."""
    found = [model]
    for part in path:
        below = [m for f in found if part in f.model_fields for m in models_in(f.model_fields[part].annotation)]
        tagged = [m for m in found if part in tags_of(m)]
        found = below or tagged or found
    return found


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return every model named in an annotation: optional, union, list or tuple of models."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, tuple, list, dict, Annotated):
        return [model for argument in get_args(annotation) for model in models_in(argument)]
    return []


def tags_of(model: type[BaseModel]) -> set[str]:
    """Return the values that tell this member of a union from the others (its one-value literals)."""
    literals = (get_args(field.annotation) for field in model.model_fields.values())
    return {values[0] for values in literals if len(values) == 1 and isinstance(values[0], str)}


def lines_of(text: str) -> dict[Path, int]:
    """Return the line (from 1) of every key in a YAML text, by its path."""

    def walk(node: yaml.Node | None, path: Path) -> Iterator[tuple[Path, int]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield (*path, key.value), key.start_mark.line + 1
                yield from walk(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                yield (*path, str(index)), value.start_mark.line + 1
                yield from walk(value, (*path, str(index)))

    return dict(walk(yaml.compose(text), ()))
