"""Sums written out the way one does them in the head, so that every step is an easy one."""


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
    """Return `a x b` worked: 14 x 6 = 60 + 24 = 84 (b is one digit; tens of a, then ones)."""
    between = f"{a // 10 * 10 * b} + {a % 10 * b} = " if a > 10 and a % 10 else ""
    return f"{a} x {b} = {between}{a * b}"


def divided(a: int, b: int) -> str:
    """Return `a / b`, which must come out even."""
    return f"{a} / {b} = {a // b}"
