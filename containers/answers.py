"""What an answer comes to, and whether that is what was expected.

A number is compared as a number, whatever stands around it: units, currency, thousands separators, `#### 24`. Any other
answer is right when its words stand in the reply, in order and together.
"""

import re
from decimal import Decimal, DivisionByZero, InvalidOperation

NUMBER = r"-?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
FRACTION = rf"{NUMBER}(?:\s*/\s*\d+(?:\.\d+)?)?"
LATEX_FRACTION = re.compile(r"\\d?frac\{(-?\d+)\}\{(\d+)\}")
NUMBERS = re.compile(rf"(?<!\w)(?<!\d\.){FRACTION}")
DRESS = re.compile(r"\\(?:boxed|text|[$%,!;])|\^\\circ|\^\{\\circ\}")
"""LaTeX that changes no number, unlike a root or a power."""
MARKED = (
    re.compile(r"####\s*(.+)"),
    re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}"),
    re.compile(r"(?i)\banswer\b(?:\s+is)?\s*[:=]?\s*(.+)"),
)
"""Where a reply says that the answer follows, surest mark first (GSM8K, MATH, plain words)."""


def final_answer(reply: str) -> str | None:
    """Return the number that a reply ends in (after its answer mark, else the last one), None where there is none.

    Of a marked passage such as `the answer is 3 hours at 60 km/h` the first number counts, of any other the last.
    """
    plain = LATEX_FRACTION.sub(r"\1/\2", reply).replace("\u2212", "-").replace("{,}", ",")
    for mark in MARKED:
        passages = mark.findall(plain)
        numbers = numbers_in(passages[-1].split("=")[-1]) if passages else []
        if numbers:
            return numbers[0]
    numbers = numbers_in(plain)
    return numbers[-1] if numbers else None


def numbers_in(text: str) -> list[str]:
    """Return the numbers of a text, thousands separators removed."""
    return [re.sub(r"[,\s]", "", match) for match in NUMBERS.findall(text)]


def value_of(text: str) -> Decimal | None:
    """Return the value of `24`, `-1,200.50` or `3/4`; None for any other text."""
    above, _, below = text.replace(",", "").partition("/")
    try:
        return Decimal(above) / Decimal(below) if below else Decimal(above)
    except (InvalidOperation, DivisionByZero):
        return None


def is_right(reply: str, expected: str) -> bool:
    """Tell whether a reply gives the expected answer."""
    wanted = number_of(expected)
    if wanted is None:
        words = words_of(expected)
        return bool(words) and f" {' '.join(words)} " in f" {' '.join(words_of(reply))} "
    found = value_of(final_answer(reply) or "")
    # Decimals are compared to six digits: 0.333333 is 1/3.
    return found is not None and abs(found - wanted) <= Decimal("1e-6") * max(1, abs(wanted))


def number_of(expected: str) -> Decimal | None:
    """Return an expected answer as a number when it is one, with or without a mark, a currency sign or a unit."""
    plain = LATEX_FRACTION.sub(r"\1/\2", expected)
    numbers, rest = numbers_in(plain), DRESS.sub(" ", NUMBERS.sub(" ", plain))
    if len(numbers) != 1 or len(words_of(rest)) > 2 or re.search(r"[\\^\u221a]", rest):
        return None
    return value_of(numbers[0])


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, articles and punctuation aside."""
    return [word for word in re.findall(r"[^\W_]+", text.casefold()) if word not in ("a", "an", "the")]
