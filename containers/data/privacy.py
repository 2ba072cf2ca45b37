"""Personal data by pattern: found, counted or replaced by its kind, offline (datafog's regular expressions).

Only datafog's table of compiled patterns is used: no model, no network, and none of the calls that could send its
telemetry. Dates and postal codes are left out, for every year and every five-digit number would be one. The patterns
are tried only where a fast scan sees an `@` or a run of digits: a superset of all their matches.
"""

import re
from collections import Counter
from functools import lru_cache

from datafog.processing.text_processing.regex_annotator.regex_annotator import RegexAnnotator

IN_DIGITS = (("CREDIT_CARD", 13), ("SSN", 9), ("PHONE", 10), ("IP_ADDRESS", 4))
"""Kind and fewest digits that it has (a phone number with a + may have fewer), first those that win an overlap."""
RUN = re.compile(r"\d[\d().\-\s]{5,}\d")
"""At least seven characters of digits and what stands between them in numbers."""
NOT_DIGITS = bytes(byte for byte in range(256) if not 48 <= byte <= 57)
FEWEST_DIGITS = 4
BEFORE = 4
"""Characters before a run that a match may begin with (`+1 (`) or must look at."""
AROUND_AT = re.compile(r"[^\s@]{1,256}@[^\s@]{1,256}")
Span = tuple[int, int, str]


@lru_cache(maxsize=1)
def patterns() -> dict[str, re.Pattern[str]]:
    """Return the library's compiled patterns by label."""
    found: dict[str, re.Pattern[str]] = RegexAnnotator().patterns
    return found


def spans_in(text: str) -> list[Span]:
    """Return (start, end, kind) of each finding, none overlapping, in order."""
    found: list[Span] = []
    if "@" in text:
        for area in AROUND_AT.finditer(text):
            found += matches("EMAIL", text, area)
    if len(text.encode().translate(None, NOT_DIGITS)) >= FEWEST_DIGITS:
        for area in RUN.finditer(text):
            for label in possible(area[0], text[max(area.start() - BEFORE, 0) : area.start()]):
                found += [span for span in matches(label, text, area) if not any(overlap(span, old) for old in found)]
    return sorted(found)


def possible(run: str, before: str) -> list[str]:
    """Return the kinds that a run of digits is long enough for."""
    digits = len(run.encode().translate(None, NOT_DIGITS))
    labels = [label for label, fewest in IN_DIGITS if digits >= fewest and (fewest != 4 or run.count(".") >= 3)]
    return [*labels, "PHONE"] if "+" in before and "PHONE" not in labels else labels


def matches(label: str, text: str, area: re.Match[str]) -> list[Span]:
    """Return the findings of one kind in and around an area."""
    begin, end = max(area.start() - BEFORE, 0), min(area.end() + 1, len(text))
    return [(m.start(), m.end(), label) for m in patterns()[label].finditer(text, begin, end)]


def overlap(one: Span, other: Span) -> bool:
    """Tell whether two spans share a character."""
    return one[0] < other[1] and other[0] < one[1]


def scrubbed(text: str, counts: Counter[str]) -> str:
    """Return `text` with each finding replaced by its kind, `[EMAIL]`, and count them."""
    parts, place = [], 0
    for start, end, kind in spans_in(text):
        counts[kind] += 1
        parts += [text[place:start], f"[{kind}]"]
        place = end
    return "".join([*parts, text[place:]]) if parts else text
