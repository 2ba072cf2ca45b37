"""How a page looks: screenshots for people, contrast and axe-core's rules for the tests.

SLIPWAY_PICTURES=FOLDER keeps the screenshots.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import axe_core_python

from tests.ui.browser import Browser

AXE = Path(axe_core_python.__file__).parent / "axe.min.js"


def opened(browser: Browser, address: str) -> Iterator[Browser]:
    """Open a page at desktop size, and hold it to no complaint on the console until the test is over."""
    browser.complaints.clear()
    browser.window(1280, 860)
    browser.go("about:blank")
    browser.go(address)
    browser.until(lambda: browser.text("#name") == "small")
    yield browser
    assert browser.complaints == []


def picture(page: Browser, name: str) -> None:
    """Keep a screenshot if anyone wants to look at it."""
    folder = os.environ.get("SLIPWAY_PICTURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.picture(Path(folder) / f"{name}.png")


def violations(page: Browser) -> list[str]:
    """Return what breaks axe-core's rules (WCAG 2 A and AA, best practices), with the elements at fault."""
    if not page.js("typeof axe === 'object'"):
        page.js(AXE.read_text(encoding="utf-8") + ";0")
    found = page.js("axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.map((n) => n.html.slice(0, 120))]))")
    return [f"{rule}: {'; '.join(elements)}" for rule, elements in found]


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
