"""Where the files lie that a recipe names: relative to the recipe's own file."""

import re
from pathlib import Path
from typing import Any

from infra.pins import is_pin


def located(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `values` with relative source paths, and other files that lie there, placed below `folder`."""

    def place(item: Any, certain: bool = False) -> Any:
        if isinstance(item, list):
            return [place(i, certain) for i in item]
        if not isinstance(item, dict):
            return item
        named = {key: item[key] for key in ("path", "recorded") if isinstance(item.get(key), str)}
        found = {
            key: str(folder / path)
            for key, path in named.items()
            if not is_pin(path) and (certain or lies_in(folder, path))
        }
        return {key: place(value, certain) for key, value in item.items()} | found

    placed: dict[str, Any] = {key: place(values[key]) for key in ("checkpoint", "align") if key in values}
    return {**values, **placed, "data": place(values.get("data"), certain=True)}


def lies_in(folder: Path, path: str) -> bool:
    """Whether a path, or the file of a `file.py:function`, is there: a hub name or a module is not."""
    return (folder / re.sub(r"(?<=\.py):\w+$", "", path)).exists()
