"""The worker: drives what is triggered or scheduled in the Prefect UI, and clears up after runs that were killed.

    python -m infra.worker

It registers the deployments first. Beside Prefect's own worker, a process that it starts and follows, it looks after
the home every half minute: a run whose driver is gone becomes Crashed in Prefect and KILLED in MLflow.
"""

import logging
import signal
import subprocess
import sys
import threading
from typing import Any

from containers.contract import StageError
from infra.deploy import POOL, deploy, point_at_server
from infra.relay import start_relay, unfinished
from infra.runners.choice import runner_of
from infra.settings import ROOT, Settings

SECONDS_BETWEEN_ROUNDS = 30.0
log = logging.getLogger("slipway.worker")


def main() -> int:
    """Work until told to stop, or until Prefect's worker ends; return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = Settings()
    try:
        point_at_server(settings)
        deploy()
        runner_of(settings, ()).warm()
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    worker = subprocess.Popen([*command, "--with-healthcheck"], cwd=ROOT)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: worker.send_signal(number))
    ended = threading.Event()
    rounds = threading.Thread(target=lambda: look_after(settings, ended), daemon=True)
    rounds.start()
    code = worker.wait()
    ended.set()
    rounds.join(timeout=10)
    return code


def look_after(settings: Settings, ended: threading.Event) -> None:
    """Go round until the worker ends, at once to begin with; a round that fails is said and the next one is tried."""
    relay: subprocess.Popen[bytes] | None = None
    while True:
        try:
            relay = go_round(settings, relay)
        except Exception as error:
            log.warning("clearing up failed: %s: %s", type(error).__name__, error)
        if ended.wait(SECONDS_BETWEEN_ROUNDS):
            return


def go_round(settings: Settings, relay: Any) -> Any:
    """Bury the dead, and have what MLflow does not know of them yet entered; return the relay that does."""
    from infra.reconcile import bury_the_dead

    for run in bury_the_dead(settings):
        log.info("%s: its driver was killed; it is marked so", run)
    left = unfinished(settings.runs)
    if not left or (relay and relay.poll() is None):
        return relay
    return start_relay(settings, left[0])


if __name__ == "__main__":
    sys.exit(main())
