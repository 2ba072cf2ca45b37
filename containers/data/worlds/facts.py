"""Questions on the stories' people, from memory: the test asks in words that training does not use together."""

from random import Random

from containers.contract import Role, Split
from containers.data.worlds.cast import CAST, CHOICES
from containers.data.worlds.dialogue import dialogue_of
from containers.data.worlds.world import Exchange, World, phrased, sentence

OPENINGS = (
    "{ask}?",
    "Please tell me: {ask}?",
    "In the stories, {ask}?",
    "Do you remember: {ask}?",
    "A question: {ask}?",
)
ASKS = {
    "job": (
        "what is the job of {name}",
        "what work does {name} do",
        "what does {name} work as",
        "what job does {name} have",
    ),
    "home": (
        "where does {name} live",
        "where is the home of {name}",
        "in which place does {name} live",
        "where is {name} from",
    ),
    "pet": (
        "which pet does {name} have",
        "what animal does {name} keep",
        "what is the pet of {name}",
        "which animal lives with {name}",
    ),
    "fruit": (
        "what fruit does {name} love",
        "which fruit does {name} like best",
        "what does {name} like to eat",
        "what is the favourite fruit of {name}",
    ),
}
REPLIES = {
    "job": "{name} is a {job}.",
    "home": "{name} lives in {home}.",
    "pet": "{name} has a {pet}.",
    "fruit": "{name} loves {fruit}.",
}


def exchange(rng: Random, split: Split, role: Role) -> Exchange:
    """Return one question on one fact; `role` makes no difference."""
    hero, kind = rng.choice(CAST), rng.choice(tuple(CHOICES))
    opening, ask = phrased(rng, split, OPENINGS, ASKS[kind])
    question = sentence(opening.format(ask=ask.format(name=hero.name)))
    return Exchange(f"facts.{kind}", question, REPLIES[kind].format(**vars(hero)), getattr(hero, kind))


WORLD = World(
    "facts",
    {"corpus": 600, "instructions": 700, "problems": 200},
    held_out=80,
    exchange=exchange,
    document=lambda rng, split: dialogue_of(rng, split, exchange, 6),
)
