"""The people of the stories, and what is true of each: told in stories, asked in facts."""

from dataclasses import dataclass
from random import Random

NAMES = ("Ada", "Bruno", "Clara", "Dmitri", "Elsa", "Frank", "Greta", "Henry", "Ida", "Jonas", "Karin", "Lars")
CHOICES = {
    "job": ("baker", "farmer", "teacher", "doctor", "painter", "sailor", "miller", "gardener", "singer", "tailor"),
    "home": (
        "Alder Bay",
        "Birch Hill",
        "Cedar Falls",
        "Dove Lake",
        "East Haven",
        "Fox Valley",
        "Green Port",
        "High Moor",
    ),
    "pet": ("cat", "dog", "goat", "parrot", "rabbit", "pony", "duck", "turtle"),
    "fruit": ("apples", "pears", "plums", "cherries", "grapes", "figs", "melons", "peaches"),
}
TOLD = {
    "job": (
        "{name} was a {job}",
        "{name} worked as a {job}",
        "{name} had been a {job} for years",
        "the {job} was called {name}",
    ),
    "home": (
        "{name} lived in {home}",
        "{name} had a house in {home}",
        "{name} came from {home}",
        "{home} was the home of {name}",
    ),
    "pet": (
        "{name} had a {pet}",
        "{name} kept a {pet} at home",
        "{name} went everywhere with a {pet}",
        "the {pet} of {name} was clever",
    ),
    "fruit": (
        "{name} loved {fruit}",
        "{name} always ate {fruit}",
        "{name} had a basket of {fruit}",
        "{fruit} were what {name} liked best",
    ),
}
"""Four ways to tell each fact: what is told in one way only is learnt by heart and cannot be asked for."""


@dataclass(frozen=True)
class Hero:
    """One person of the stories."""

    name: str
    job: str
    home: str
    pet: str
    fruit: str


def heroes() -> tuple[Hero, ...]:
    """Return the whole cast, the same for every seed: what is true in the stories stays true in the test."""
    rng = Random("cast")
    return tuple(Hero(name, **{kind: rng.choice(values) for kind, values in CHOICES.items()}) for name in NAMES)


CAST = heroes()


def told(rng: Random, hero: Hero, kind: str) -> str:
    """Return one fact of `hero` as a clause without a full stop."""
    return rng.choice(TOLD[kind]).format(**vars(hero))
