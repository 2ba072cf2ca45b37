"""The serving side of a shared home: serves what is wanted there, and changes over when something else is.

    python -m infra.serving_host

It runs in a container of its own (docker-compose.yml, profile `serve`), where it listens on every address.
"""

import signal
import sys
import threading
import time
from pathlib import Path

from containers.contract import StageError
from infra.serve_elsewhere import Wanted, sign_of_life, wanted
from infra.service import start_service, stop_service
from infra.settings import Settings

PORT = 3000
POLL_SECONDS = 1.0


def main() -> int:
    """Serve until SIGTERM."""
    settings = Settings(serve_url=None)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    sign = sign_of_life(settings)
    sign.parent.mkdir(parents=True, exist_ok=True)
    threading.Thread(target=lambda: beat(sign, told), daemon=True).start()
    serving: Wanted | None = None
    while not told.wait(POLL_SECONDS):
        wish = wanted(settings)
        if wish and wish != serving:
            serve(wish, settings)
            serving = wish
    sign.unlink(missing_ok=True)
    stop_service(settings)
    return 0


def serve(wish: Wanted, settings: Settings) -> None:
    """Serve a bundle on every address of this container; one that does not start is said to be that."""
    try:
        endpoint = start_service(wish.bundle, wish.config.revise(host="0.0.0.0", port=PORT), settings)
        print(f"{endpoint.model} {wish.bundle.version} answers", flush=True)
    except StageError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)


def beat(sign: Path, told: threading.Event) -> None:
    """Say every second that this host lives."""
    while not told.is_set():
        sign.touch()
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
