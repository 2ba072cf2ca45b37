"""Sums written out the way one does them in the head, so that every step is an easy one; and whose they are.

The tables (both numbers up to 9) are taught whole, as at school. A pair of numbers beyond them belongs to one split in
every world: if 60 and 3 are kept for the test, no training row multiplies, divides or travels with them.
"""

from containers.contract import Split
from containers.data.worlds.world import split_of


def owner(sign: str, a: int, b: int) -> Split:
    """Return the split that may work with `a` and `b`; `sign` is one of + - x, and a quotient is its product's."""
    return "train" if max(a, b) < 10 else split_of(sign, a, b) if sign == "-" else split_of(sign, min(a, b), max(a, b))


def added(a: int, b: int) -> str:
    """Return `a + b` worked: 37 + 48 = 70 + 15 = 85 (tens, then ones)."""
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    between = f"{tens} + {ones} = " if a % 10 and b % 10 and tens else ""
    return f"{a} + {b} = {between}{a + b}"


def taken(a: int, b: int) -> str:
    """Return `a - b` worked: 85 - 48 = 45 - 8 = 37 (tens first)."""
    between = f"{a - b // 10 * 10} - {b % 10} = " if b >= 10 and b % 10 else ""
    return f"{a} - {b} = {between}{a - b}"


def multiplied(a: int, b: int) -> str:
    """Return `a x b`, a fact of the tables or ten times one."""
    return f"{a} x {b} = {a * b}"


def divided(a: int, b: int) -> str:
    """Return `a / b`, which must come out even."""
    return f"{a} / {b} = {a // b}"
