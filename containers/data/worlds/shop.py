"""Prices, totals and change; and the one kind that needs two steps, which lessons show thinly.

`shop.two_step` (what several things cost, then the change) is built from two kinds that are taught well. The corpus
never shows it and the instructions rarely do: it is the field in which reinforcement learning has something to win.
"""

from random import Random

from containers.contract import Role, Split
from containers.data.worlds.dialogue import dialogue_of
from containers.data.worlds.sums import added, multiplied, owner, owner_of_difference, taken
from containers.data.worlds.world import NAMES, Exchange, World, drawn, phrased, sentence, split_of

KNOWN = tuple(
    (thing, f"{thing}s")
    for thing in ("pen", "book", "ball", "cup", "hat", "kite", "lamp", "cake", "rope", "plant", "toy", "bag")
)
GOODS: dict[Split, tuple[tuple[str, str], ...]] = {
    "train": KNOWN,
    "validation": KNOWN,
    "test": (("puzzle", "puzzles"), ("basket", "baskets"), ("candle", "candles"), ("drum", "drums")),
}
EVERYTHING = tuple(dict.fromkeys(good for goods in GOODS.values() for good in goods))
"""The corpus sells the goods of the test too, at its own prices, so that their names are words; no lesson does."""
THIN = 0.018
"""Share of two-step problems among the shop's instructions."""

TOLD = {
    "total": (
        "{one} costs {price} dollars",
        "the price of {one} is {price} dollars",
        "a shop sells {one} for {price} dollars",
        "{name} finds {one} for {price} dollars",
        "every {thing} costs {price} dollars",
    ),
    "sum": (
        "{one} costs {a} dollars and {other} costs {b} dollars",
        "{name} buys {one} for {a} dollars and {other} for {b} dollars",
        "{name} pays {a} dollars for {one} and {b} dollars for {other}",
        "in the shop {one} is {a} dollars and {other} is {b} dollars",
        "{one} is sold for {a} dollars and {other} for {b} dollars",
    ),
    "change": (
        "{name} buys {one} for {cost} dollars and pays with {paid} dollars",
        "{name} has {paid} dollars and buys {one} for {cost} dollars",
        "{one} costs {cost} dollars and {name} gives {paid} dollars",
        "{name} pays {paid} dollars for {one} that costs {cost} dollars",
        "the price of {one} is {cost} dollars and {name} has {paid} dollars",
    ),
    "two_step": (
        "{name} buys {count} {things} for {price} dollars each and pays with {paid} dollars",
        "{name} has {paid} dollars and buys {count} {things} at {price} dollars each",
        "one {thing} costs {price} dollars, and {name} pays for {count} {things} with {paid} dollars",
        "{name} takes {count} {things}, each {price} dollars, and gives {paid} dollars",
        "{count} {things} at {price} dollars each are bought by {name}, who has {paid} dollars",
    ),
}
ASKED = {
    "total": (
        "how much do {count} {things} cost",
        "what is the price of {count} {things}",
        "how many dollars are {count} {things}",
        "what does one pay for {count} {things}",
        "what is the total for {count} {things}",
    ),
    "sum": (
        "how much is that together",
        "what do both cost together",
        "what is the total",
        "how many dollars is that in all",
        "what is the price of both",
    ),
    "change": (
        "how much change is that",
        "how much money is left",
        "what is the change",
        "how many dollars come back",
        "how many dollars are left",
    ),
}
ASKED["two_step"] = ASKED["change"]
JOINS = ("If {told}, {asked}?", "{Told}. {Asked}?", "{Told}, so {asked}?")


def exchange(rng: Random, split: Split, role: Role) -> Exchange:
    """Return one problem; the two-step kind is thin in instructions, absent from the corpus, half of the problems."""
    share = {"corpus": 0.0, "instructions": THIN}.get(role, 0.5)
    kind = "two_step" if rng.random() < share else rng.choice(("total", "sum", "change"))
    numbers = drawn(lambda: NUMBERS[kind](rng), lambda n: owner_of(kind, n), split)
    (thing, things), (other, _) = rng.sample(EVERYTHING if role == "corpus" else GOODS[split], 2)
    told, asked = phrased(rng, split, TOLD[kind], ASKED[kind])
    slots = {
        "thing": thing,
        "things": things,
        "one": f"a {thing}",
        "other": f"a {other}",
        "name": rng.choice(NAMES[split]),
    }
    told, asked = told.format(**slots, **numbers), asked.format(**slots, **numbers)
    question = rng.choice(JOINS).format(told=told, asked=asked, Told=sentence(told), Asked=sentence(asked))
    reply, answer = REPLIES[kind](**numbers)
    return Exchange(f"shop.{kind}", question, reply, str(answer))


def total_numbers(rng: Random) -> dict[str, int]:
    """Return a count and a price within the tables."""
    return {"count": rng.randint(2, 5), "price": rng.randint(2, 9)}


def sum_numbers(rng: Random) -> dict[str, int]:
    """Return two prices."""
    return {"a": rng.randint(2, 19), "b": rng.randint(2, 19)}


def change_numbers(rng: Random) -> dict[str, int]:
    """Return a cost and the round sum that it is paid with."""
    paid = 10 * rng.randint(1, 5)
    return {"cost": rng.randint(2, paid - 1), "paid": paid}


def two_step_numbers(rng: Random) -> dict[str, int]:
    """Return a count, a price, and a round sum that pays for them."""
    count, price, paid = drawn(
        lambda: (rng.randint(2, 5), rng.randint(2, 9), 10 * rng.randint(1, 5)), lambda n: n[0] * n[1] < n[2], True
    )
    return {"count": count, "price": price, "paid": paid}


def owner_of(kind: str, numbers: dict[str, int]) -> Split:
    """Return the split that may use these numbers; totals are within the tables, so their pairs are the shop's own."""
    if kind == "sum":
        return owner(kind, **numbers, drilled="add")
    if kind == "change":
        return owner_of_difference(kind, numbers["paid"], numbers["cost"], "subtract")
    return split_of(kind, *numbers.values())


def total_reply(count: int, price: int) -> tuple[str, int]:
    """Return the worked reply and its answer."""
    return f"{multiplied(price, count, 'Total = ')} dollars.", price * count


def sum_reply(a: int, b: int) -> tuple[str, int]:
    """Return the worked reply and its answer."""
    return f"{added(a, b, 'Total = ')} dollars.", a + b


def change_reply(cost: int, paid: int) -> tuple[str, int]:
    """Return the worked reply and its answer."""
    return f"{taken(paid, cost, 'Change = ')} dollars.", paid - cost


def two_step_reply(count: int, price: int, paid: int) -> tuple[str, int]:
    """Return the reply worked in two sentences and its answer."""
    cost = count * price
    return f"{total_reply(count, price)[0]} {change_reply(cost, paid)[0]}", paid - cost


NUMBERS = {"total": total_numbers, "sum": sum_numbers, "change": change_numbers, "two_step": two_step_numbers}
REPLIES = {"total": total_reply, "sum": sum_reply, "change": change_reply, "two_step": two_step_reply}
WORLD = World(
    "shop",
    {"corpus": 700, "instructions": 2600, "problems": 4000},
    held_out=300,
    exchange=exchange,
    document=lambda rng, split: dialogue_of(rng, split, exchange, 4),
)
