"""The compare page: two answers, a choice, and the row that comes of it. Pictures as in test_chat_page."""

import json
from collections.abc import Iterator

import pytest

from containers.contract import Endpoint
from infra.settings import Settings
from tests.ui.browser import Browser, chromium
from tests.ui.looking import CONTRAST, opened, picture, violations

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed: apt install chromium")


@pytest.fixture
def page(browser: Browser, endpoint: Endpoint, key: str) -> Iterator[Browser]:
    yield from opened(browser, f"{endpoint.url}/compare.html#key={key}")


def choose(page: Browser, selector: str, value: str) -> None:
    element = f"document.querySelector('{selector}')"
    page.js(f"{element}.value = '{value}'; {element}.dispatchEvent(new Event('input'))")


def ask(page: Browser, question: str) -> None:
    """Ask for two answers that differ: drawn far from what the model knows by heart, and again if need be."""
    choose(page, "#temperature", "2")
    choose(page, "#longest", "48")
    for _ in range(5):
        page.click("#prompt")
        page.write(question)
        page.press("Enter", 13)
        page.until(lambda: can_choose(page) or page.text("#said").startswith(("One answer is", "Both answers are")))
        if can_choose(page):
            return
    raise AssertionError(page.text("#said"))


def can_choose(page: Browser) -> bool:
    return bool(page.js("!document.querySelector('#choices button').disabled"))


def newest(settings: Settings) -> dict[str, object]:
    row: dict[str, object] = json.loads((settings.home / "feedback/preferences.jsonl").read_text().splitlines()[-1])
    return row


def test_the_better_answer_is_recorded(page: Browser, settings: Settings) -> None:
    ask(page, "Tell me about the sea.")
    answers = [page.text("#a"), page.text("#b")]
    assert answers[0] != answers[1]
    page.click("#choices button:nth-child(3)")
    page.until(lambda: page.text("#said").startswith("Kept"))
    row = newest(settings)
    assert row["prompt"] == [{"role": "user", "content": "Tell me about the sea."}]
    assert [str(text).split() for text in row["candidates"]] == [text.split() for text in answers]  # type: ignore[attr-defined]
    assert (row["ranks"], row["origin"]) == ([2, 1], "compare")
    assert page.js("document.querySelector('#choices button').disabled"), "a choice counts once"
    assert page.js("document.activeElement.id") == "prompt"


def test_a_tie_is_recorded_by_keyboard_alone(page: Browser, settings: Settings) -> None:
    ask(page, "And the hills?")
    assert page.js("document.activeElement.parentElement.id") == "choices"
    page.press("0", 48)
    page.until(lambda: page.text("#said").startswith("Kept"))
    assert newest(settings)["ranks"] == [1, 1]


def test_equal_answers_are_nothing_to_choose_between(page: Browser) -> None:
    choose(page, "#temperature", "0.2")
    page.click("#prompt")
    page.write("What is 2+2?")
    page.press("Enter", 13)
    page.until(lambda: "the same" in page.text("#said"))
    assert page.js("document.querySelector('#choices button').disabled")


def test_stop_ends_both_answers(page: Browser) -> None:
    page.download_speed(1_000)
    page.click("#prompt")
    page.write("Count.")
    page.press("Enter", 13)
    page.click("#send")
    page.until(lambda: page.text("#said") == "Stopped.")
    page.download_speed(-1)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 860), (390, 844)], ids=["desktop", "phone"])
def test_it_fits_and_can_be_read(page: Browser, width: int, height: int, dark: bool) -> None:
    page.window(width, height, dark=dark, scale=2 if width < 600 else 1)
    ask(page, "Tell me about the sea.")
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.js(CONTRAST) >= 4.5
    assert violations(page) == []
    picture(page, f"compare-{width}-{'dark' if dark else 'light'}")
