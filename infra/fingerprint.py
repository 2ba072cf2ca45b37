"""What a stage run is: everything that its result depends on, by name, and one hash of it all.

Where something lies never counts; what it holds does. `slipway why` compares the parts of two runs.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from containers.code import Code
from containers.contract import Artifact, Frozen, Stage
from infra.settings import ROOT

Components = dict[str, Any]
"""`stage`, `config` (its fields), `inputs` (a digest each), `code` (per module), `versions` (per package)."""


def components(stage: Stage[Any, Any, Any], config: Frozen, inputs: Frozen, code: Code) -> Components:
    """Return the parts of a fingerprint as JSON values."""
    return {
        "stage": stage.word,
        "config": what_matters(config),
        "inputs": what_matters(inputs),
        "code": code.parts,
        "versions": pinned_versions(stage.word),
    }


def fingerprint_of(parts: Components) -> str:
    """Return the sha256 of the parts' canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def what_matters(value: Any) -> Any:
    """Return a config or inputs as JSON values, without `aside()` fields and without the paths of artifacts."""
    if isinstance(value, Artifact) and not value.digest:
        raise ValueError(f"the artifact at {value.path} has no digest, so nobody can tell what it holds")
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        kept = [name for name, field in fields.items() if affects_result(field)]
        kept = [name for name in kept if not (isinstance(value, Artifact) and name == "path")]
        return {name: what_matters(getattr(value, name)) for name in kept}
    if isinstance(value, dict):
        return {str(key): what_matters(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [what_matters(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((what_matters(item) for item in value), key=repr)
    return to_jsonable_python(value)


def affects_result(field: FieldInfo) -> bool:
    """Whether a field belongs to the fingerprint: all but those declared with `aside()`."""
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("affects_result") is False)


def pinned_versions(group: str, root: Path = ROOT) -> dict[str, str]:
    """Return package -> pinned version of a dependency group, groups that it includes resolved.

    Raises KeyError naming the group or package that pyproject.toml or constraints.txt lacks.
    """
    groups, pins = _read_pins(root, *(changed(root / name) for name in ("pyproject.toml", "constraints.txt")))
    return {name: pins[name] for name in sorted(set(packages_in(group, groups)))}


def packages_in(group: str, groups: dict[str, list[Any]]) -> Iterator[str]:
    """Yield the normalised package names of a group."""
    for entry in groups[group]:
        if isinstance(entry, str):
            yield normalised(re.split(r"[\[<>=!~; ]", entry)[0])
        else:
            yield from packages_in(entry["include-group"], groups)


def normalised(name: str) -> str:
    """Return a package name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def changed(file: Path) -> int:
    """Return when a file last changed, in nanoseconds."""
    return file.stat().st_mtime_ns


@lru_cache(maxsize=8)
def _read_pins(root: Path, *_changed: int) -> tuple[dict[str, list[Any]], dict[str, str]]:
    groups = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0])
    return groups, {normalised(name): version for name, version in pins}


def differences(old: Components, new: Components) -> list[tuple[str, Any, Any]]:
    """Return (dotted name, old value, new value) of every part that differs; None where one side lacks it."""
    before, after = dict(flattened(old)), dict(flattened(new))
    names = sorted(before.keys() | after.keys())
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def flattened(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every leaf; a code module's own dots are kept as they are."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flattened(item, f"{name}.{key}" if name else key)
    else:
        yield name, value
