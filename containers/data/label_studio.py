"""Label Studio's JSON export of tasks whose data hold `prompt` and `candidates`, as records in our ranking shape.

Its Ranker tag names the ids of its items in their order, and the ids are places in `candidates`; its Pairwise tag names
the left (first) or the right one of two.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from containers.data.records import Bad


def annotated(values: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Return one record in our shape for each annotation of a Label Studio task; raises Bad."""
    task, annotations = values.get("data"), values.get("annotations")
    if not isinstance(task, dict) or not isinstance(annotations, list):
        raise Bad("not a task of Label Studio's JSON export: `data` and `annotations` are needed")
    task = {name: value for name, value in task.items() if name not in ("ranking", "ranks", "rater")}
    return [{**task, **given} for given in map(annotation_of, annotations)] or [task]


def annotation_of(annotation: Any) -> dict[str, Any]:
    """Return `ranking` and `rater` of one annotation; no ranking where it was skipped."""
    found: dict[str, Any] = annotation if isinstance(annotation, dict) else {}
    results = found.get("result") if not found.get("was_cancelled") else None
    ranking = None
    for result in results if isinstance(results, list) else ():
        value = result.get("value") if isinstance(result, dict) else None
        if isinstance(value, dict) and result.get("type") == "ranker":
            ranking = order_in(value.get("ranker"))
        elif isinstance(value, dict) and result.get("type") == "pairwise":
            ranking = [0, 1] if value.get("selected") == "left" else [1, 0]
    rater = found.get("completed_by")
    return {"ranking": ranking, "rater": rater.get("email", rater.get("id")) if isinstance(rater, dict) else rater}


def order_in(ranker: Any) -> Any:
    """Return the places that a Ranker's one list names; anything else is left for `places_in` to refuse."""
    lists = list(ranker.values()) if isinstance(ranker, dict) else [ranker]
    if len(lists) == 1 and isinstance(lists[0], list):
        return [int(place) if isinstance(place, str) and place.isdecimal() else place for place in lists[0]]
    return lists
