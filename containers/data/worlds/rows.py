"""From worlds to rows: test rows first, then training rows that share no long run of words with them."""

from collections.abc import Iterator
from random import Random
from typing import Any

from containers.contract import Role, Split
from containers.data.worlds.world import Exchange, World, runs_of

Run = tuple[str, ...]
Item = Exchange | str
"""An exchange, or one corpus text."""
TRIES = 100
"""Draws without anything new before a world is taken to be exhausted."""


class Rows:
    """The rows of one world in one role, from a seed."""

    def __init__(self, world: World, role: Role, seed: int) -> None:
        """Draw the test items: the same exchanges for every role, a few of them as lessons where problems ask them."""
        self.world, self.role = world, role
        self.rng = Random(f"{world.word} {role} {seed}")
        exchanges = drawn_items(world, "problems", seed) if world.exchange else []
        texts = drawn_items(world, "corpus", seed) if "corpus" in world.sizes else []
        checked = role == "instructions" and "problems" in world.sizes
        self.tests = texts if role == "corpus" else exchanges[: len(exchanges) // 8 if checked else None]
        self.seen = {key_of(item) for item in [*exchanges, *texts]}
        self.forbidden: set[Run] = set().union(*(runs_of(text_of(item)) for item in [*exchanges, *texts]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield rows with their split, the splits mixed."""
        kept: list[Split] = ["train"] * self.world.sizes[self.role] + ["validation"] * (self.world.held_out // 2)
        order = [*kept, *self.tests]
        self.rng.shuffle(order)
        for number, place in enumerate(order):
            split: Split = place if isinstance(place, str) and place in ("train", "validation") else "test"
            item = place if split == "test" else self.fresh(split)
            if item is not None:
                row = {"id": f"{self.world.word}-{self.role}-{number}", "source": f"builtin:{self.world.word}"}
                yield {**row, **columns_of(item, self.role), "split": split}

    def fresh(self, split: Split) -> Item | None:
        """Return an item that is not there yet and shares no run with a test item, or None where there is none left."""
        for _ in range(TRIES):
            item = one(self.world, self.role, self.rng, split)
            if key_of(item) not in self.seen and self.forbidden.isdisjoint(runs_of(text_of(item))):
                self.seen.add(key_of(item))
                return item
        return None


def drawn_items(world: World, role: Role, seed: int) -> list[Item]:
    """Return the test items of a world, each once."""
    rng = Random(f"{world.word} {role} test {seed}")
    items = (one(world, role, rng, "test") for _ in range(world.held_out))
    return list({key_of(item): item for item in items}.values())


def one(world: World, role: Role, rng: Random, split: Split) -> Item:
    """Return one item: a text for the corpus, an exchange for every other role."""
    if role == "corpus" and world.document:
        return world.document(rng, split)
    assert world.exchange, f"{world.word} makes no {role}"
    return world.exchange(rng, split, role)


def key_of(item: Item) -> str:
    """Return what makes an item itself: the same question may come back with another reply."""
    return text_of(item)


def text_of(item: Item) -> str:
    """Return all that is said in an item."""
    return item if isinstance(item, str) else f"{item.question} {item.reply}"


def columns_of(item: Item, role: Role) -> dict[str, Any]:
    """Return the columns of `role` (`containers.formats.COLUMNS`), task and answer."""
    if isinstance(item, str):
        return {"text": item, "task": None, "answer": None}
    side = {"task": item.task, "answer": item.answer}
    prompt, reply = [{"role": "user", "content": item.question}], {"role": "assistant", "content": item.reply}
    if role == "instructions":
        return {"messages": [*prompt, reply], **side}
    if role == "problems":
        return {"messages": prompt, **side}
    return {"prompt": prompt, "chosen": [reply], "rejected": [{"role": "assistant", "content": item.worse}], **side}
