"""Bare sums: "What is 2+2?" and friends, in talk and as drills."""

from random import Random

from containers.contract import Role, Split
from containers.data.worlds.dialogue import dialogue_of
from containers.data.worlds.sums import added, divided, multiplied, owner, owner_of_difference, taken
from containers.data.worlds.world import Exchange, World, drawn, phrased

ASKS = ("What is {sum}?", "How much is {sum}?", "Calculate {sum}.", "Work out {sum}, please.", "Tell me what {sum} is.")
FORMS = ("{a} {sign} {b}", "{a}{sign}{b}", "{a} {word} {b}")
WORDS = {"add": ("+", "plus"), "subtract": ("-", "minus"), "multiply": ("x", "times"), "divide": ("/", "divided by")}
WORKED = {"add": added, "subtract": taken, "multiply": multiplied, "divide": divided}
LOOKS = {"add": 5, "subtract": 5, "multiply": 4, "divide": 4}
"""Shares of a drill's lines: sums and differences have the longest tables."""
LINES = (8, 14)
"""Sums in a drill: the tables need many looks, and here each costs a line."""


def exchange(rng: Random, split: Split, role: Role) -> Exchange:
    """Return one sum of one of the four kinds; `role` makes no difference."""
    kind = rng.choice(tuple(WORDS))
    a, b = numbers(rng, kind, split)
    ask, form = phrased(rng, split, ASKS, FORMS)
    sign, word = WORDS[kind]
    question = ask.format(sum=form.format(a=a, b=b, sign=sign, word=word))
    worked = WORKED[kind](a, b)
    return Exchange(f"arithmetic.{kind}", question, f"{worked}.", worked.rsplit(" ", 1)[1])


def numbers(rng: Random, kind: str, split: Split) -> tuple[int, int]:
    """Return the two numbers of a sum that belong to `split`."""
    owner_of = owner_of_difference if kind == "subtract" else owner
    a, b = drawn(lambda: NUMBERS[kind](rng), lambda pair: owner_of(kind, *pair), split)
    if kind == "divide":
        return a * b, rng.choice((a, b))
    return (a, b) if kind == "subtract" or rng.random() < 0.5 else (b, a)


def terms(rng: Random) -> tuple[int, int]:
    """Return two numbers up to 19, the larger first: from the tables, mixed, or both beyond them."""
    low, top = rng.choice(((1, 9), (1, 19), (10, 19)))
    a, b = rng.randint(low, top), rng.randint(low, top)
    return max(a, b), min(a, b)


def difference(rng: Random) -> tuple[int, int]:
    """Return two terms, or a round number and what is taken from it."""
    paid = 10 * rng.randint(1, 5)
    return (paid, rng.randint(2, paid - 1)) if rng.random() < 0.4 else terms(rng)


def factors(rng: Random) -> tuple[int, int]:
    """Return two factors from the tables, mostly one of them ten times as large."""
    tens = rng.choice(((1, 1), (10, 1), (10, 1), (1, 10)))
    return rng.randint(2, 9) * tens[0], rng.randint(2, 5) * tens[1]


NUMBERS = {"add": terms, "subtract": difference, "multiply": factors, "divide": factors}


def document(rng: Random, split: Split) -> str:
    """Return a talk with sums, or a drill: sums line by line, every second drill as a quiz."""
    if rng.random() < 0.15:
        return dialogue_of(rng, split, exchange, 6)
    kinds = rng.choices(tuple(LOOKS), tuple(LOOKS.values()), k=rng.randint(*LINES))
    quiz = rng.random() < 0.5
    return "\n".join(drilled(kind, *numbers(rng, kind, split), quiz) for kind in kinds)


def drilled(kind: str, a: int, b: int, quiz: bool) -> str:
    """Return one line of a drill."""
    asked = f"{a} {WORDS[kind][0]} {b} = ? " if quiz else ""
    return asked + WORKED[kind](a, b)


WORLD = World(
    "arithmetic",
    {"corpus": 5000, "instructions": 2600, "problems": 1000},
    held_out=240,
    exchange=exchange,
    document=document,
)
