"""Records from texts: a whole file, its lines, its parts between separators, WikiText articles, web pages, code."""

import re
from collections.abc import Iterator

from containers.data.records import Record, Reject
from containers.data.streams import BROKEN, Source, lines_of

MAX_DOCUMENT = 1 << 22
"""Characters; a longer text is cut into several documents at the next empty line, so that memory stays bounded."""
HARD_LIMIT = 2 * MAX_DOCUMENT
SEPARATOR = "<|endoftext|>"
SEPARATOR_LINE = re.compile(rb"^<\|endoftext\|>\s*$", re.MULTILINE)
TITLE = re.compile(r" = [^=].*[^=] = $")
MAX_PAGE_BYTES = 1 << 26


def whole(source: Source) -> Iterator[Record | Reject]:
    """Yield the file as one document, or as parts of about MAX_DOCUMENT characters cut at empty lines."""
    yield from gathered(source, lambda _: False)


def separated(source: Source) -> Iterator[Record | Reject]:
    """Yield the parts between lines that hold nothing but `<|endoftext|>`; the marker is in none of them."""
    yield from gathered(source, lambda text: text.strip() == SEPARATOR)


def articles(source: Source) -> Iterator[Record | Reject]:
    """Yield WikiText articles: each begins at a ` = Title = ` line."""
    yield from gathered(source, lambda text: TITLE.match(text) is not None)


def by_line(source: Source) -> Iterator[Record | Reject]:
    """Yield each line that is not empty as a document."""
    for number, text, reason in lines_of(source):
        if text is None:
            yield Reject(source.name, number, reason)
        elif text.strip():
            yield Record(source.name, number, {"text": text})


def gathered(source: Source, begins) -> Iterator[Record | Reject]:  # type: ignore[no-untyped-def]
    """Yield documents of consecutive lines; a line for which `begins(text)` is true starts a new one."""
    held: list[str] = []
    first, size = 1, 0
    for number, text, reason in lines_of(source):
        if text is None:
            yield Reject(source.name, number, reason)
            continue
        full = size > MAX_DOCUMENT and (not text.strip() or size > HARD_LIMIT)
        if (full or begins(text)) and held:
            if size:
                yield Record(source.name, first, {"text": "\n".join(held)})
            held, first, size = [], number, 0
        if text.strip() != SEPARATOR:
            held.append(text)
            size += len(text.strip()) and len(text) + 1
    if size:
        yield Record(source.name, first, {"text": "\n".join(held)})


def page(source: Source) -> Iterator[Record | Reject]:
    """Yield the main text of a web page, without menus and scripts (trafilatura, deterministic, no network)."""
    try:
        data = source.stream.read(MAX_PAGE_BYTES)
    except BROKEN as error:
        yield Reject(source.name, 1, f"the compressed file is broken ({error})")
        return
    import trafilatura

    text = trafilatura.extract(data, include_comments=False, deduplicate=False)
    if text:
        yield Record(source.name, 1, {"text": text})
    else:
        yield Reject(source.name, 1, "no main text found in the page")


def is_wikitext(head: bytes) -> bool:
    """Tell whether a text has WikiText's spaced headings and either its `<unk>` or its ` @-@ ` marks."""
    text = head.decode("utf-8", "ignore")
    headed = any(TITLE.match(line) for line in text.split("\n")[:200])
    return headed and (" @-@ " in text or "<unk>" in text or " @,@ " in text)


def cleaned_wikitext(text: str) -> str:
    """Return WikiText as prose: `10 @,@ 000` -> `10,000`, no space before punctuation, ` = = Head = = ` -> `Head`.

    `<unk>` stays: nobody knows the word.
    """
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r"^ (?:= )+(.*?)(?: =)+ ?$", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r" ([,.;:!?)\]%])", r"\1", text)
    text = re.sub(r"([(\[]) ", r"\1", text)
    text = re.sub(r"\$ (?=\d)", "$", text)
    text = re.sub(r" (n't|'(?:s|re|ve|ll|d|m))\b", r"\1", text)
    text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
    return "\n".join(line.strip() for line in text.split("\n"))
