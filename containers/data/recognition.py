"""Tell the shape of a file from the columns of its first records, or say what was found and what is needed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from containers.contract import Role, StageError
from containers.data import thumbs
from containers.data.rankings import RANKED
from containers.data.records import Record
from containers.data.source import Shape, SourceConfig

LOOKED_AT = 50
"""First records whose columns decide; later rows that lack them are rejected one by one."""
SIGNS: tuple[tuple[Shape, tuple[str, ...]], ...] = (
    ("turns", ("turns",)),
    ("label_studio", ("data", "annotations")),
    ("openai_preference", ("input", "preferred_output", "non_preferred_output")),
    ("preference", ("chosen", "rejected")),
    ("messages", ("messages",)),
    ("sharegpt", ("conversations",)),
    ("svamp", ("Body", "Question", "Answer")),
    ("alpaca", ("instruction", "output")),
    ("alpaca", ("instruction", "response")),
    ("unpaired", ("prompt", "completion", "label")),
    ("prompt_completion", ("prompt", "completion")),
    ("prompt_completion", ("prompt", "response")),
    ("ranking", ("prompt", "candidates")),
    ("question_answer", ("question", "answer")),
    ("plain", ("text",)),
    ("plain", ("content",)),
    ("plain", ("raw_content",)),
    ("plain", ("document",)),
)
PREFERENCES = ("transcripts", "preference", "openai_preference", *RANKED)
WITH_ANSWERS = ("gsm8k", "svamp", "question_answer", "messages")
FITTING: Mapping[Role, tuple[str, ...]] = {
    "corpus": tuple(s for s in get_args(Shape) if s not in PREFERENCES),
    "instructions": tuple(s for s in get_args(Shape) if s not in (*PREFERENCES, "plain")),
    "preferences": (*PREFERENCES, thumbs.SHAPE),
    "problems": WITH_ANSWERS,
}
NEEDED: Mapping[Role, str] = {
    "corpus": "`text` (or a conversation, which is written out as dialogue)",
    "instructions": "`messages`, `conversations`, `prompt` + `completion`, or `instruction` + `output`",
    "preferences": "`chosen` + `rejected` (with `prompt`, or as transcripts or messages), OpenAI's columns, "
    "rankings (`prompt` + `candidates` + `ranking`, or Label Studio's export), or thumbs (`prompt` + `completion` + "
    "`label`)",
    "problems": "`question` + `answer` (GSM8K), `Body` + `Question` + `Answer` (SVAMP), or `messages` + `answer`",
}


def renamed(values: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a record with our names for the columns that a recipe maps."""
    if not columns:
        return values
    theirs = set(columns.values())
    kept = {name: value for name, value in values.items() if name not in theirs}
    return {**kept, **{ours: values[name] for ours, name in columns.items() if name in values}}


def shape_of(role: Role, first: Sequence[Record], source: SourceConfig) -> Shape:
    """Return the shape of a file by its first records; raises StageError (file:line, columns found and needed)."""
    forced = source.format if source.format in get_args(Shape) else None
    shape = forced or seen(first)
    place = f"{first[0].file}:{first[0].line}" if first else "no record"
    if shape is not None and shape in FITTING[role]:
        return shape  # type: ignore[return-value]
    found = ", ".join(sorted({name for record in first for name in record.values}))[:300]
    looks = f" (it looks like {shape})" if shape else ""
    raise StageError(
        f"{place}: wrong schema for {role}: the columns are {found or 'none'}{looks}, where {NEEDED[role]} "
        "is needed: rename them in the recipe with `columns: {ours: theirs}`, or force a `format`"
    )


def seen(first: Sequence[Record]) -> Shape | None:
    """Return the shape that most of the first records show."""
    votes = Counter(one for record in first if (one := sign(record.values)))
    return votes.most_common(1)[0][0] if votes else None


def sign(values: Mapping[str, Any]) -> Shape | None:
    """Return the shape that one record shows."""
    for shape, names in SIGNS:
        if all(values.get(name) is not None for name in names):
            if shape == thumbs.SHAPE and thumbs.thumb_of(values["label"]) is None:
                continue
            if shape == "preference" and isinstance(values["chosen"], str) and "\n\nHuman:" in values["chosen"][:40]:
                return "transcripts" if "prompt" not in values else shape
            if shape == "question_answer" and "####" in str(values["answer"]):
                return "gsm8k"
            return shape
    return None
