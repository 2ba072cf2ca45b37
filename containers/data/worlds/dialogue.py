"""Exchanges as running text: two people talk, and the corpus so prepares what the instructions ask."""

from collections.abc import Callable
from random import Random

from containers.contract import Role, Split
from containers.data.worlds.world import NAMES, Exchange

OPENINGS = (
    "{a} and {b} sat in the kitchen and talked.",
    "On the way home, {a} had some questions for {b}.",
    "{a} sat down with {b} after lunch.",
    "It was raining, so {a} and {b} stayed inside.",
    "In the library, {a} sat next to {b}.",
    "{b} liked to help, and {a} liked to ask.",
    "{a} opened a new notebook, and {b} came to look.",
    "Before dinner, {a} went to see {b}.",
)
EVERYBODY = tuple(dict.fromkeys(name for names in NAMES.values() for name in names))
"""The people of the test may talk, so that their names are words that the model has read; they own no problem."""
TURNS = (
    ("{a}: {question}", "{b}: {reply}"),
    ('{a} asked, "{question}"', '{b} said, "{reply}"'),
    ("Question: {question}", "Answer: {reply}"),
    ("{question}", "{reply}"),
)


def dialogue_of(rng: Random, split: Split, exchange: Callable[[Random, Split, Role], Exchange], most: int) -> str:
    """Return a talk of two to `most` exchanges between two people."""
    a, b = rng.sample(EVERYBODY, 2)
    ask, tell = rng.choice(TURNS)
    lines = [rng.choice(OPENINGS).format(a=a, b=b)]
    for _ in range(rng.randint(2, most)):
        turn = exchange(rng, split, "corpus")
        lines.append(ask.format(a=a, question=turn.question))
        lines.append(tell.format(b=b, reply=turn.reply))
    return "\n".join(lines)
