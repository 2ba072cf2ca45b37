"""Rate, distance and time: trains, buses and ships that keep their speed."""

from random import Random

from containers.contract import Role, Split
from containers.data.worlds.dialogue import dialogue_of
from containers.data.worlds.sums import owner
from containers.data.worlds.world import NAMES, Exchange, World, drawn, phrased, sentence

KNOWN = ("a train", "a bus", "a car", "a ship", "a truck", "a van", "the fast train", "the night bus", "a red car")
VEHICLES: dict[Split, tuple[str, ...]] = {
    "train": KNOWN,
    "validation": KNOWN,
    "test": ("a tram", "a ferry", "a coach", "the express train"),
}
PACES = (
    "{vehicle} travels {speed} km in 1 hour",
    "{vehicle} moves at {speed} km/h",
    "{vehicle} covers {speed} km every hour",
    "{vehicle} goes {speed} km per hour",
    "the speed of {vehicle} is {speed} km/h",
)
TRIPS = (
    "{vehicle} travels {distance} km in {hours} hours",
    "{vehicle} covers {distance} km in {hours} hours",
    "{vehicle} needs {hours} hours for {distance} km",
    "a trip of {distance} km with {vehicle} takes {hours} hours",
    "in {hours} hours {vehicle} goes {distance} km",
)
ASKS = {
    "time": (
        "how long will it take to travel {distance} km",
        "how many hours does it need for {distance} km",
        "how long is a trip of {distance} km",
        "how much time does it take to go {distance} km",
        "in how many hours does it cover {distance} km",
    ),
    "distance": (
        "how far will it travel in {hours} hours",
        "how many km does it cover in {hours} hours",
        "what distance does it go in {hours} hours",
        "how far is it from the start after {hours} hours",
        "how much ground does it cover in {hours} hours",
    ),
    "speed": (
        "what is its speed",
        "how fast is it",
        "how many km does it travel in 1 hour",
        "what is its speed in km/h",
        "how far does it go in 1 hour",
    ),
}
JOINS = (
    "If {told}, {asked}?",
    "{Told}. {Asked}?",
    "{name} sees that {told}. {Asked}?",
    "{Told}, and {name} wants to know: {asked}?",
)
REPLIES = {
    "time": "Speed = {speed} km/h. Time = {distance} / {speed} = {hours} hours.",
    "distance": "Speed = {speed} km/h. Distance = {speed} x {hours} = {distance} km.",
    "speed": "Tens: {tens} / {hours} = {tens_of_speed}. Speed = {distance} / {hours} = {speed} km/h.",
}
SUMS = {"time": "divide", "distance": "multiply", "speed": "divide"}
ANSWERS = {"time": "{hours}", "distance": "{distance}", "speed": "{speed}"}


def exchange(rng: Random, split: Split, role: Role) -> Exchange:
    """Return one problem with two of rate, distance and time given; `role` makes no difference."""
    kind = rng.choice(tuple(ASKS))
    speed, hours = drawn(lambda: trip(rng), lambda pair: owner(kind, *pair, SUMS[kind]), split)
    numbers = {"speed": speed, "hours": hours, "distance": speed * hours}
    numbers |= {"tens": speed * hours // 10, "tens_of_speed": speed // 10}
    told, asked = phrased(rng, split, TRIPS if kind == "speed" else PACES, ASKS[kind])
    told = told.format(vehicle=rng.choice(VEHICLES[split]), **numbers)
    asked = asked.format(**numbers)
    question = rng.choice(JOINS).format(
        told=told, asked=asked, Told=sentence(told), Asked=sentence(asked), name=rng.choice(NAMES[split])
    )
    return Exchange(f"travel.{kind}", question, REPLIES[kind].format(**numbers), ANSWERS[kind].format(**numbers))


def trip(rng: Random) -> tuple[int, int]:
    """Return speed (km/h) and hours of a trip of 100 km or more whose product the tables have.

    A rarer length of number is a copy that goes wrong.
    """

    def suits(pair: tuple[int, int]) -> bool:
        tens, hours = pair[0] // 10, pair[1]
        return tens * hours >= 10 and min(tens, hours) <= 5

    return drawn(lambda: (10 * rng.randint(2, 9), rng.randint(2, 6)), suits, True)


WORLD = World(
    "travel",
    {"corpus": 600, "instructions": 2000, "problems": 1000},
    held_out=150,
    exchange=exchange,
    document=lambda rng, split: dialogue_of(rng, split, exchange, 4),
)
