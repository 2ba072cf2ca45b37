"""Sums written out the way one does them in the head, so that every step is an easy one; and whose they are.

The tables (numbers up to 19 with one digit added or taken, products up to 9 x 5) are taught whole, as at school. Beyond
them a pair of numbers belongs to one split per kind of question, and none is kept for the test twice: if 60 and 3 are
the test's in travel times, no training row asks for a time with them, but drills divide 180 by 60.
"""

from containers.contract import Split
from containers.data.worlds.world import split_of


def owner(kind: str, a: int, b: int, drilled: str = "") -> Split:
    """Return the split whose questions of a symmetric `kind` may use `a` and `b`; a quotient's are its factors.

    `drilled` is the kind of sum that the question comes down to.
    """
    in_tables = min(a, b) < 10 and max(a, b) < 20
    known = drilled and owner(drilled, a, b) != "train"
    return "train" if in_tables or known else split_of(kind, min(a, b), max(a, b))


def owner_of_difference(kind: str, a: int, b: int, drilled: str = "") -> Split:
    """Return the split whose questions of `kind` may take `b` from `a`."""
    in_tables = a < 20 and b < 10
    known = drilled and owner_of_difference(drilled, a, b) != "train"
    return "train" if in_tables or known else split_of(kind, a, b)


def added(a: int, b: int, what: str = "") -> str:
    """Return `a + b` worked, `what` before the sum itself: "Ones: 7 + 6 = 13. Total = 17 + 16 = 33"."""
    ones = f"Ones: {a % 10} + {b % 10} = {a % 10 + b % 10}. " if max(a, b) > 9 else ""
    return f"{ones}{what}{a} + {b} = {a + b}"


def taken(a: int, b: int, what: str = "") -> str:
    """Return `a - b` worked: "Ones: 7 - 2 = 5. 17 - 12 = 5", and from a round number "50 - 18 = 40 - 8 = 32"."""
    ones = f"Ones: {a % 10} - {b % 10} = {a % 10 - b % 10}. " if a > 9 and 0 < a % 10 >= b % 10 else ""
    between = f"{a - b // 10 * 10} - {b % 10} = " if a % 10 == 0 and b >= 10 and b % 10 else ""
    return f"{ones}{what}{a} - {b} = {between}{a - b}"


def multiplied(a: int, b: int, what: str = "") -> str:
    """Return `a x b`, a fact of the tables or ten times one."""
    return f"{what}{a} x {b} = {a * b}"


def divided(a: int, b: int, what: str = "") -> str:
    """Return `a / b`, which must come out even."""
    return f"{what}{a} / {b} = {a // b}"
