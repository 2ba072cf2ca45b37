"""Short stories with a little dialogue, about people of whom some things are always true (`cast`)."""

from random import Random

from containers.contract import Split
from containers.data.worlds.cast import CAST, CHOICES, Hero, told
from containers.data.worlds.world import World, sentence

WEATHER = ("sunny", "rainy", "windy", "foggy", "warm", "cold", "quiet", "grey", "bright")
RIDES = ("train", "bus", "ship", "tram", "ferry", "coach", "express train", "night bus", "fast train", "car")
TIMES = ("morning", "afternoon", "evening", "day", "Sunday", "Monday", "Friday")
STARTS = (
    "One {weather} {time}, {name} went out early.",
    "It was a {weather} {time}, and {name} was in a good mood.",
    "On a {weather} {time}, {name} could not find any rest.",
    "{name} woke up on a {weather} {time} and smiled.",
    "That {weather} {time} began like any other for {name}.",
    "On a {weather} {time}, {name} came home by {ride}.",
)
THINGS = (
    "key",
    "hat",
    "letter",
    "ring",
    "bell",
    "map",
    "lamp",
    "coat",
    "book",
    "basket",
    "coin",
    "flute",
    "boot",
    "scarf",
    "pen",
    "cup",
    "kite",
    "rope",
    "puzzle",
    "candle",
    "drum",
)
PLACES = (
    "under the bridge",
    "behind the mill",
    "near the well",
    "in the old tower",
    "by the river",
    "at the market",
    "in the garden",
    "on the hill",
    "beside the church",
    "in the barn",
    "on the beach",
    "at the station",
)
PLOTS = (
    (
        "{name} had lost a {thing} and looked for it everywhere.",
        '"Have you seen my {thing}?" asked {name}.',
        '"I saw it {place}," said {friend}.',
        "They went there together, and the {thing} lay {place}.",
    ),
    (
        "A stranger stood {place} and held a {thing}.",
        '"Is this {thing} yours?" the stranger asked {name}.',
        '"No, but I know whose it is," said {name}, and they went to see {friend}.',
        "{friend} was very glad to have the {thing} back.",
    ),
    (
        "{name} wanted to make a {thing} for {friend}.",
        '"It must be a surprise," said {name} and worked in secret {place}.',
        '{friend} came by and asked, "What are you doing here?"',
        '"Look, it is a {thing}, and it is for you," said {name}.',
    ),
    (
        "There was a loud noise {place}, and {name} ran to look.",
        "A small {pet2} was caught there beside a {thing}, and {friend} was already there.",
        '"Hold it gently, and I will open the gate," said {friend}.',
        "Soon the {pet2} was free, and {name} found a {thing} {place}.",
    ),
    (
        "{name} had promised to bring a {thing} to {friend} before dark.",
        "The way was long, and the {thing} was heavy.",
        '"You are late, but you came," said {friend}.',
        '"A promise is a promise," said {name}, and put the {thing} on the table.',
    ),
    (
        "Nobody in the village could ring the bell {place}.",
        '"The rope is broken," said {friend}.',
        "{name} thought for a while and tied a {thing} to the end.",
        "The bell rang, and everybody came to see the {thing}.",
    ),
)
ENDS = (
    "In the end they shared some bread and laughed.",
    "After that, {name} and {friend} were friends for life.",
    '"Thank you," said {friend}, and {name} went home happy.',
    "That night {name} slept very well.",
    "{name} told the story again and again for many years.",
    "And so a {weather} {time} turned into a good one.",
)


def document(rng: Random, split: Split) -> str:
    """Return a story of eight to eleven sentences, or short portraits; what they say of people holds everywhere."""
    if rng.random() < 0.4:
        return "\n".join(" ".join(facts_of(rng, hero, 4)) for hero in rng.sample(CAST, 3))
    return story(rng)


def story(rng: Random) -> str:
    """Return one story about two people."""
    hero, friend = rng.sample(CAST, 2)
    slots = {
        "name": hero.name,
        "friend": friend.name,
        "thing": rng.choice(THINGS),
        "place": rng.choice(PLACES),
        "weather": rng.choice(WEATHER),
        "ride": rng.choice(RIDES),
        "time": rng.choice(TIMES),
        "pet2": rng.choice(("fox", "bird", "lamb", "owl")),
    }
    lines = [
        rng.choice(STARTS),
        *facts_of(rng, hero, 3),
        *rng.choice(PLOTS),
        *facts_of(rng, friend, 2),
        rng.choice(ENDS),
    ]
    return " ".join(line.format(**slots) for line in lines)


def facts_of(rng: Random, hero: Hero, count: int) -> list[str]:
    """Return `count` different facts about `hero`, now and then two of them in one sentence."""
    clauses = [told(rng, hero, kind) for kind in rng.sample(tuple(CHOICES), count)]
    if rng.random() < 0.5:
        clauses[-2:] = [", and ".join(clauses[-2:])]
    return [sentence(clause) + "." for clause in clauses]


WORLD = World("stories", {"corpus": 900}, held_out=60, document=document)
