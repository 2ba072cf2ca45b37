"""Does somebody answer at an address? The standard library alone: images without our dependencies ask too."""

import urllib.error
import urllib.request


def fetch(url: str, seconds: float = 2) -> bytes | None:
    """Return the body of a GET that answers 200 within `seconds`, else None."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as response:
            body: bytes = response.read()
            return body if response.status == 200 else None
    except (urllib.error.URLError, OSError):
        return None


def answers(url: str) -> bool:
    """Whether a GET of `url` returns 200."""
    return fetch(url, 5) is not None
