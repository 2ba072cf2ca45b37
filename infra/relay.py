"""The relay: a process of its own that follows a run's journal and writes it to MLflow.

A process, because importing MLflow costs seconds of processor time that would be taken from the run's own
interpreter, and because nothing that MLflow does may delay or fail a stage. Its position is saved after each
successful write; an outage is waited out; what is still missing when it gives up, the relay of the next run enters.

    python -m infra.relay RUN_FOLDER
"""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from containers.out import write_last
from infra.journal import NAME, is_driven, read_from, run_folders
from infra.settings import ROOT, Settings

POLL_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 5
EVENTS_A_STEP = 50
"""So many are entered before the position is saved, so that a slow server's timeout costs no more of them again."""
PATIENCE_SECONDS = 60
"""How long an outage is waited out once the run has ended."""
STATE = "mlflow.json"
log = logging.getLogger("slipway.relay")


def start_relay(settings: Settings, folder: Path) -> subprocess.Popen[bytes]:
    """Start the relay of the run in `folder`: low priority, out of reach of the terminal's Ctrl-C."""
    settings.logs.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "SLIPWAY_HOME": str(settings.home),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }
    with (settings.logs / "mlflow-relay.log").open("ab") as errors:
        return subprocess.Popen(
            ["nice", "-n", "10", sys.executable, "-m", "infra.relay", str(folder)],
            stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env=environment, start_new_session=True,
        )  # fmt: skip


def main(folder: Path) -> int:
    """Follow the journal of one run to its end, then enter what earlier relays left; return 1 if something is left."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = Settings()
    settings.mlflow_home.mkdir(parents=True, exist_ok=True)
    caught_up = follow(settings, folder)
    for other in unfinished(settings.runs):
        caught_up = follow(settings, other, patience=0) and caught_up
    return 0 if caught_up else 1


def unfinished(runs: Path) -> list[Path]:
    """Return the folders of ended runs whose journal is not yet entered to its end."""
    return [folder for folder in run_folders(runs, NAME) if not saved(folder)["ended"] and not is_driven(folder)]


def saved(folder: Path) -> dict[str, Any]:
    """Return how far a run's journal is entered: position in bytes, MLflow run ids, whether it is all."""
    file = folder / STATE
    blank = {"position": 0, "runs": {}, "ended": False}
    state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else blank
    return state


def follow(settings: Settings, folder: Path, patience: float = PATIENCE_SECONDS) -> bool:
    """Enter one run until its end (or its driver's death); return False when MLflow stayed down past `patience`."""
    try:
        with FileLock(folder / "relay.lock").acquire(timeout=0):
            return Follower(settings, folder).follow(patience)
    except Timeout:
        return True


class Follower:
    """Reads one journal, writes one ledger, keeps the position."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Take up where the saved position is."""
        self.settings, self.folder = settings, folder
        self.ledger: Any = None
        self.ended = False

    def follow(self, patience: float) -> bool:
        """Step until the end; after a failure pause, longer each time.

        `patience` seconds of failing count from the end of the run.
        """
        pause, down_since = 1.0, 0.0
        while not self.ended:
            try:
                idle = not self.step()
                pause, down_since = 1.0, 0.0
                time.sleep(POLL_SECONDS if idle and not self.ended else 0)
            except Exception as error:
                down_since = 0.0 if is_driven(self.folder) else down_since or time.monotonic()
                log.warning("%s: MLflow: %s: %s", self.folder.name, type(error).__name__, str(error)[:300])
                self.ledger = None
                if down_since and time.monotonic() - down_since >= patience:
                    return False
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return True

    def step(self) -> bool:
        """Enter what is new and save the position; return whether anything was."""
        from infra.tracking import Ledger

        driven = is_driven(self.folder)
        state = saved(self.folder)
        events, position = read_from(self.folder, state["position"], EVENTS_A_STEP)
        if self.ledger is None:
            self.ledger = Ledger(self.settings, self.folder, state["runs"])
        if events:
            self.ledger.enter(events)
        self.ended = any(event["event"] == "end" for event in events)
        if not driven and not self.ended and not events:
            self.ledger.end("killed", time.time())
            self.ended = True
        if events or self.ended:
            values = {"position": position, "runs": self.ledger.runs, "ended": self.ended}
            write_last(self.folder / STATE, json.dumps(values))
        return bool(events)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
