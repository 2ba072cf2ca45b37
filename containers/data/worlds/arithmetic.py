"""Bare sums: "What is 2+2?" and friends. The tables up to 9 are taught whole, pairs beyond them are held out."""

from random import Random

from containers.contract import Role, Split
from containers.data.worlds.dialogue import dialogue_of
from containers.data.worlds.sums import added, divided, multiplied, taken
from containers.data.worlds.world import Exchange, World, drawn, phrased, split_of

ASKS = ("What is {sum}?", "How much is {sum}?", "Calculate {sum}.", "Work out {sum}, please.", "Tell me what {sum} is.")
FORMS = ("{a} {sign} {b}", "{a}{sign}{b}", "{a} {word} {b}")
WORDS = {"add": ("+", "plus"), "subtract": ("-", "minus"), "multiply": ("x", "times"), "divide": ("/", "divided by")}
WORKED = {"add": added, "subtract": taken, "multiply": multiplied, "divide": divided}


def exchange(rng: Random, split: Split, role: Role) -> Exchange:
    """Return one sum of one of the four kinds; `role` makes no difference."""
    kind = rng.choice(tuple(WORDS))
    a, b = drawn(lambda: pair(rng, kind), lambda ab: owner(kind, *ab), split)
    ask, form = phrased(rng, split, ASKS, FORMS)
    sign, word = WORDS[kind]
    question = ask.format(sum=form.format(a=a, b=b, sign=sign, word=word))
    worked = WORKED[kind](a, b)
    return Exchange(f"arithmetic.{kind}", question, f"{worked}.", worked.rsplit(" ", 1)[1])


def pair(rng: Random, kind: str) -> tuple[int, int]:
    """Return the two numbers of a sum, results between 0 and 198; one third of the sums are within the tables."""
    top = 9 if rng.random() < 1 / 3 else 99
    a, b = rng.randint(1, top), rng.randint(1, top)
    if kind == "add":
        return a, b
    if kind == "subtract":
        return max(a, b), min(a, b)
    b = rng.randint(2, 9)
    a = rng.randint(2, 9) if top == 9 else rng.randint(11, 19)
    return (a, b) if kind == "multiply" else (a * b, b)


def owner(kind: str, a: int, b: int) -> Split:
    """Return the split of a pair: the tables belong to training, all else is dealt out."""
    return "train" if max(a // b if kind == "divide" else a, b) < 10 else split_of(kind, a, b)


WORLD = World(
    "arithmetic",
    {"corpus": 4000, "instructions": 1600, "problems": 1000},
    held_out=200,
    exchange=exchange,
    document=lambda rng, split: dialogue_of(rng, split, exchange, 6),
)
