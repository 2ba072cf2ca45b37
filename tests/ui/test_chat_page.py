"""The chat page, served by the real Bento, used in real Chromium the way a person uses it.

SLIPWAY_PICTURES=FOLDER keeps screenshots in both themes, at desktop and phone width.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.contract import Endpoint
from containers.serve.contract import ServeConfig
from infra.service import start_service, stop_service
from infra.settings import Settings
from tests.small_bundle import KNOWN, small_bundle
from tests.ui.browser import Browser, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed: apt install chromium")

LOGIN, TRAIN = [q for q in KNOWN if q.startswith(("I can't", "If a train"))]
LAST = "#log li:last-child"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    yield start_service(small_bundle(), ServeConfig(port=port, slots=2, threads=1), settings)
    stop_service(settings)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Browser, endpoint: Endpoint) -> Iterator[Browser]:
    browser.complaints.clear()
    browser.window(1280, 860)
    browser.go(endpoint.url)
    browser.until(lambda: browser.text("#name") == "small")
    yield browser
    assert browser.complaints == []


def ask(page: Browser, question: str) -> None:
    page.click("#prompt")
    page.write(question)
    page.press("Enter", 13)


def answered(page: Browser) -> bool:
    return bool(page.js("document.querySelector('#log .assistant:last-child:not(.busy)') !== null"))


def choose(page: Browser, selector: str, value: str, event: str) -> None:
    element = f"document.querySelector('{selector}')"
    page.js(f"{element}.value = '{value}'; {element}.dispatchEvent(new Event('{event}'))")


def test_it_opens_with_what_the_model_is_and_what_to_ask(page: Browser) -> None:
    assert "five answers" in page.text("#description")
    assert page.text("#format") == "f16"
    assert LOGIN in page.text("#examples")
    assert page.js("document.querySelector('#send').disabled")


def test_a_conversation_streams_and_its_turns_are_sent_back(page: Browser) -> None:
    page.js(
        "window.lengths = []; const log = document.querySelector('#log');"
        "new MutationObserver(() => lengths.push(log.innerText.length))"
        ".observe(log, {childList: true, subtree: true, characterData: true})"
    )
    ask(page, LOGIN)
    page.until(lambda: answered(page))
    assert page.text(f"{LAST} .text") == KNOWN[LOGIN]
    assert len(set(page.js("lengths"))) > 10, "the answer came in one piece"
    assert "tokens/s" in page.text(f"{LAST} .figures")
    ask(page, TRAIN)
    page.until(lambda: answered(page))
    turns = page.js("[...document.querySelectorAll('#log li')].map((li) => li.className)")
    assert turns == ["user", "assistant", "user", "assistant"]


def test_stop_ends_the_answer_and_the_page_goes_on(page: Browser) -> None:
    page.download_speed(1_000)  # the small model would have answered before anyone could press Stop
    ask(page, LOGIN)
    assert page.js("document.querySelector('#send').getAttribute('aria-label')") == "Stop"
    page.click("#send")
    page.until(lambda: answered(page))
    assert page.text(f"{LAST} .figures") == "stopped"
    page.download_speed(-1)
    page.click(f"{LAST} .again")
    page.until(lambda: answered(page))
    assert page.text(f"{LAST} .text") == KNOWN[LOGIN]


def test_an_error_is_told_where_the_answer_would_be(page: Browser) -> None:
    ask(page, "long " * 600)
    page.until(lambda: answered(page))
    assert "context" in page.text(f"{LAST} .text")
    assert page.js("document.querySelector('#log li:last-child').classList.contains('failed')")
    page.complaints[:] = [c for c in page.complaints if "400" not in c]


def test_settings_reach_the_model_and_the_theme_is_kept(page: Browser) -> None:
    page.click("#settings summary")
    choose(page, "#longest", "16", "input")
    choose(page, "#theme", "dark", "change")
    page.press("Escape", 27)
    assert not page.js("document.querySelector('#settings').open")
    ask(page, LOGIN)
    page.until(lambda: answered(page))
    assert "16 tokens" in page.text(f"{LAST} .figures")
    assert "cut" in page.text(f"{LAST} .figures")
    page.call("Page.reload")
    page.until(lambda: page.text("#name") == "small")
    assert page.js("document.documentElement.dataset.theme") == "dark"
    page.js("localStorage.clear()")


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page: Browser) -> None:
    names = page.js(
        "[...document.querySelectorAll('button, summary, textarea, input, select')].filter((e) => e.checkVisibility())"
        ".map((e) => e.ariaLabel || e.innerText || e.labels?.[0]?.innerText)"
    )
    assert all(names), names
    assert page.js("document.activeElement.id") == "prompt"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 860), (390, 844)], ids=["desktop", "phone"])
def test_it_fits_and_can_be_read(page: Browser, width: int, height: int, dark: bool) -> None:
    page.window(width, height, dark=dark, scale=2 if width < 600 else 1)
    picture(page, f"welcome-{width}-{'dark' if dark else 'light'}")
    page.click("#examples li:nth-child(2) button")
    page.until(lambda: answered(page))
    ask(page, TRAIN)
    page.until(lambda: answered(page))
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.js(CONTRAST) >= 4.5
    picture(page, f"chat-{width}-{'dark' if dark else 'light'}")
    page.click("#settings summary")
    sheet = page.js("document.querySelector('.sheet').getBoundingClientRect().toJSON()")
    assert sheet["left"] >= 0
    assert sheet["right"] <= width
    picture(page, f"settings-{width}-{'dark' if dark else 'light'}")


def picture(page: Browser, name: str) -> None:
    folder = os.environ.get("SLIPWAY_PICTURES")
    if folder:
        page.picture(Path(folder) / f"{name}.png")


CONTRAST = """
(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const seen = [...document.querySelectorAll("*")].filter(
    (e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
  return Math.min(...seen.map((e) => {
    const [a, b] = [light(channels(getComputedStyle(e).color)), light(ground(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()
"""
"""The lowest contrast of any visible text to what is behind it (WCAG 2.2, relative luminance)."""
