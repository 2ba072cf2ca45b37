"""The chat page, served by the real Bento, used in real Chromium the way a person uses it.

SLIPWAY_PICTURES=FOLDER keeps screenshots in both themes, at desktop and phone width.
"""

import json
from collections.abc import Iterator

import pytest

from containers.contract import Endpoint
from containers.serve.contract import ServeConfig
from containers.sockets import free_port
from infra.keys import local_key
from infra.service import start_service, stop_service
from infra.settings import Settings
from tests.small_adapters import SAID, adapted_bundle
from tests.small_bundle import KNOWN
from tests.ui.browser import Browser, chromium
from tests.ui.looking import CONTRAST, opened, picture, violations

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed: apt install chromium")

LOGIN, TRAIN = [q for q in KNOWN if q.startswith(("I can't", "If a train"))]
LAST = "#log li:last-child"


@pytest.fixture
def page(browser: Browser, endpoint: Endpoint, key: str) -> Iterator[Browser]:
    yield from opened(browser, f"{endpoint.url}/#key={key}")


def ask(page: Browser, question: str) -> None:
    page.click("#prompt")
    page.write(question)
    page.press("Enter", 13)


def answered(page: Browser) -> bool:
    return bool(page.js("document.querySelector('#log .assistant:last-child:not(.busy)') !== null"))


def choose(page: Browser, selector: str, value: str, event: str) -> None:
    element = f"document.querySelector('{selector}')"
    page.js(f"{element}.value = '{value}'; {element}.dispatchEvent(new Event('{event}'))")


@pytest.fixture
def several(browser: Browser, settings: Settings) -> Iterator[Browser]:
    """The page of a bundle whose models share their weights."""
    beside = Settings(home=settings.home / "several")
    served = start_service(adapted_bundle(), ServeConfig(port=free_port(), slots=2, threads=1), beside)
    yield from opened(browser, f"{served.url}/#key={local_key(beside)}")
    stop_service(beside)


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


def test_who_has_no_key_is_asked_for_one(page: Browser, endpoint: Endpoint, key: str) -> None:
    assert page.js("location.hash") == "", "the key stays in the address"
    page.js("localStorage.clear()")
    page.go("about:blank")
    page.go(endpoint.url)
    page.until(lambda: page.js("document.querySelector('#door').open"))
    picture(page, "door")
    assert violations(page) == []
    page.write("sk-wrong")
    page.press("Enter", 13)
    page.until(lambda: page.js("!document.querySelector('#door-wrong').hidden"))
    page.write(key)
    page.press("Enter", 13)
    page.until(lambda: page.text("#name") == "small")
    page.complaints[:] = [c for c in page.complaints if "401" not in c]
    assert page.js("document.activeElement.id") != "key"


def test_a_question_is_mended_and_asked_again(page: Browser) -> None:
    ask(page, "If a")
    page.until(lambda: answered(page))
    ask(page, LOGIN)
    page.until(lambda: answered(page))
    page.click("#log li:first-child .edit")
    page.js("document.activeElement.value = ''")
    page.write(TRAIN)
    picture(page, "edit")
    page.click(".editor .main")
    page.until(lambda: answered(page))
    assert page.text(f"{LAST} .text") == KNOWN[TRAIN]
    assert page.js("document.querySelectorAll('#log li').length") == 2
    page.click("#log li:first-child .edit")
    page.press("Escape", 27)
    assert page.js("document.querySelector('.editor')") is None
    assert page.text("#log li:first-child .text") == TRAIN


def test_thumbs_and_better_answers_are_kept(page: Browser, settings: Settings) -> None:
    ask(page, TRAIN)
    page.until(lambda: answered(page))
    page.click(f"{LAST} .down")
    page.until(lambda: page.js(f"document.querySelector('{LAST} .down').ariaPressed") == "true")
    page.click(f"{LAST} .edit")
    page.js("document.activeElement.value = ''")
    page.write("Three hours.")
    page.click(".editor .main")
    page.until(lambda: page.text(f"{LAST} .figures") == "improved by you")
    thumb, better = [
        json.loads((settings.home / f"feedback/{kind}.jsonl").read_text().splitlines()[-1])
        for kind in ("feedback", "preferences")
    ]
    asked = [{"role": "user", "content": TRAIN}]
    assert (thumb["prompt"], thumb["completion"], thumb["label"]) == (asked, KNOWN[TRAIN], False)
    assert (better["prompt"], better["candidates"]) == (asked, ["Three hours.", KNOWN[TRAIN]])
    assert (better["ranking"], better["origin"]) == ([0, 1], "edit")
    assert better["completion_ids"] == thumb["completion_ids"] != []
    picture(page, "thumbs")


def test_it_says_which_model_answers_and_how_good_it_is(page: Browser) -> None:
    page.click("#about summary")
    assert "recitation" in page.text("#scores")
    assert "[0.6, 0.95]" in page.text("#scores")
    assert "384 tokens" in page.text("#facts")
    picture(page, "about")
    assert violations(page) == []


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
    assert violations(page) == []
    picture(page, f"chat-{width}-{'dark' if dark else 'light'}")
    page.click("#settings summary")
    sheet = page.js("document.querySelector('#settings .sheet').getBoundingClientRect().toJSON()")
    assert sheet["left"] >= 0
    assert sheet["right"] <= width
    picture(page, f"settings-{width}-{'dark' if dark else 'light'}")


def test_one_of_several_models_answers_and_is_named_in_what_is_sent(several: Browser) -> None:
    several.click("#settings summary")
    assert several.js("[...document.querySelector('#model').options].map((o) => o.value)") == sorted(SAID)
    picture(several, "chat-models")
    assert violations(several) == []
    choose(several, "#model", "small-driver", "change")
    assert several.text("#name") == "small-driver"
    several.press("Escape", 27)
    ask(several, "Count.")
    several.until(lambda: answered(several))
    assert several.text(f"{LAST} .text") == SAID["small-driver"]["Count."]
