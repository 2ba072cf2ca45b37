"""Questions on the stories' people, from memory: a held-out fact is told in stories and never asked in training."""

from random import Random

from containers.contract import Role, Split
from containers.data.worlds.cast import CAST, CHOICES, Hero
from containers.data.worlds.dialogue import dialogue_of
from containers.data.worlds.world import Exchange, World, drawn, phrased, sentence, split_of

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
    hero, kind = drawn(lambda: (rng.choice(CAST), rng.choice(tuple(CHOICES))), lambda fact: owner(*fact), split)
    opening, ask = phrased(rng, split, OPENINGS, ASKS[kind])
    question = sentence(opening.format(ask=ask.format(name=hero.name)))
    return Exchange(f"facts.{kind}", question, REPLIES[kind].format(**vars(hero)), getattr(hero, kind))


def owner(hero: Hero, kind: str) -> Split:
    """Return the split that may ask this fact."""
    return split_of(hero.name, kind)


WORLD = World(
    "facts",
    {"corpus": 1500, "instructions": 800, "problems": 400},
    held_out=120,
    exchange=exchange,
    document=lambda rng, split: dialogue_of(rng, split, exchange, 6),
)
