"""What people may leave: the bodies of /v1/feedback and /v1/preferences, and the rows that become of them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from containers.serve.requests import Body, Turn

Id = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
Rank = Annotated[float, Field(allow_inf_nan=False, ge=1)]


class Opinion(Body):
    """What both share: the conversation that was answered, and an id that makes sending it twice harmless."""

    id: Id | None = None
    prompt: list[Turn] = Field(min_length=1, max_length=1024)
    model: str | None = Field(None, max_length=200)
    completion_ids: list[Id] = Field(default_factory=list, max_length=16)
    """Ids of the responses that are spoken of."""

    @model_validator(mode="after")
    def asks(self) -> Self:
        """Refuse a prompt that nobody could answer, or that training data cannot hold."""
        if self.prompt[-1].role != "user" or any(turn.role == "tool" or turn.content is None for turn in self.prompt):
            raise ValueError("prompt must hold texts of system, user and assistant, and end with the user's")
        return self

    def about(self) -> dict[str, Any]:
        """Return the columns that both kinds of row have."""
        turns = [{"role": "system" if t.role == "developer" else t.role, "content": t.text} for t in self.prompt]
        return {"prompt": turns, "model": self.model, "completion_ids": self.completion_ids}


class Feedback(Opinion):
    """POST /v1/feedback: a thumb for one answer."""

    completion: Text
    rating: Literal["up", "down"]
    comment: str | None = Field(None, max_length=4000)

    def row(self) -> dict[str, Any]:
        """Return what is kept: prompt, completion and label are the columns of unpaired preferences (KTO)."""
        return self.about() | {
            "completion": self.completion,
            "label": self.rating == "up",
            "comment": self.comment,
        }


class Preference(Opinion):
    """POST /v1/preferences: answers to one prompt, and which is better: places best first, or ranks (equal: a tie)."""

    candidates: list[Text] = Field(min_length=2, max_length=16)
    ranking: list[int] | None = None
    ranks: list[Rank] | None = None
    origin: Literal["compare", "edit", "api"] = "api"

    @model_validator(mode="after")
    def is_a_ranking(self) -> Self:
        """Refuse what could not be read as preference data again."""
        count = len(self.candidates)
        bare = [text.strip() for text in self.candidates]
        if not all(bare) or len(set(bare)) < count:
            raise ValueError("two candidates are equal, or one is empty")
        if (self.ranking is None) == (self.ranks is None):
            raise ValueError("give either ranking or ranks")
        if self.ranking is not None and sorted(self.ranking) != list(range(count)):
            raise ValueError(f"ranking must name each place from 0 to {count - 1} once, best first")
        if self.ranks is not None and len(self.ranks) != count:
            raise ValueError(f"ranks must hold a number for each of the {count} candidates")
        return self

    def row(self) -> dict[str, Any]:
        """Return what is kept: a row of candidates with its ranking, as `slipway candidates` writes them."""
        verdict = {"ranking": self.ranking} if self.ranks is None else {"ranks": self.ranks}
        return self.about() | {"version": 1, "candidates": self.candidates, **verdict, "origin": self.origin}
