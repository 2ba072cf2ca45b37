"""Run stages in containers, each in the image of its stage: no network, no privilege, nothing writable but its folder.

What a killed driver left behind is found by label and ended: a container whose stage folder nobody has locked.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, NotFound
from filelock import FileLock, Timeout

from containers.contract import Stage
from infra.failures import StageFailed
from infra.gpus import GPUs
from infra.images import connect, fitting_image
from infra.runners.confinement import FOLDER_LABEL, GPU_LABEL, HOME_LABEL, RUNNING_LABEL, given_to_stage, options
from infra.runners.container_gpus import gpus_of, refusal
from infra.runners.process import ended_within
from infra.settings import Settings

LOST_SECONDS = 60.0
"""How long the engine may be away while a stage runs before the stage counts as lost."""
REMOVED, STOPPED = 137, 143
AWAY = (requests.exceptions.ConnectionError, requests.exceptions.ReadTimeout)


class DockerRunner:
    """Stages in containers, siblings of this process under the same engine."""

    def __init__(self, settings: Settings, words: Iterable[str] = ()) -> None:
        """Prepare to run the stages called `words`; nothing is asked of the engine yet."""
        self.settings = settings
        self.words = tuple(words)
        self._client: Any = None
        self._started: list[ContainerAttempt] = []
        self._lock = threading.Lock()

    @property
    def client(self) -> Any:
        """The engine; raises BadInput where none answers."""
        with self._lock:
            self._client = self._client or connect(self.settings)
            return self._client

    def warm(self) -> None:
        """Refuse what has no image that fits, before anything runs; end what killed drivers left behind."""
        for word in self.words:
            fitting_image(self.client, word, self.settings)
        reap_orphans(self.client, self.settings)

    def reap(self, folder: Path) -> None:
        """End what a driver that was killed left running on `folder`; the caller holds its lock."""
        for container in labelled(self.client, f"{FOLDER_LABEL}={folder}"):
            end(container)

    def gpus(self) -> GPUs:
        """Return the GPUs that the engine gives to containers."""
        return GPUs(gpus_of(self.client, self.settings), self.settings.gpu_locks, self.gpus_in_use)

    def start(self, folder: Path, stage: Stage[Any, Any, Any], environment: Mapping[str, str]) -> "ContainerAttempt":
        """Start the stage asked for in `folder`; raises BadInput or StageFailed with the engine's reason."""
        image = fitting_image(self.client, stage.word, self.settings)
        given_to_stage(folder, self.settings)
        try:
            container = self.client.containers.create(
                image.id, command=[str(folder), "--log"], **options(self.settings, folder, stage, environment)
            )
        except APIError as error:
            raise StageFailed(f"{stage.word}: the engine made no container: {error.explanation}") from error
        try:
            container.start()
        except APIError as error:
            container.remove(force=True)
            raise refusal(stage.word, str(error.explanation)) from error
        attempt = ContainerAttempt(container, folder)
        self._started.append(attempt)
        return attempt

    def gpus_in_use(self) -> dict[str, str]:
        """Return the stage of each GPU that a container runs on, once abandoned ones are ended."""
        reap_orphans(self.client, self.settings)
        running = self.client.containers.list(filters={"label": GPU_LABEL}, ignore_removed=True)
        return {c.labels[GPU_LABEL]: f"{c.labels[RUNNING_LABEL]} (container {c.short_id})" for c in running}

    def close(self) -> None:
        """End every stage still running."""
        for attempt in self._started:
            attempt.stop(0)
        self._started.clear()


class ContainerAttempt:
    """A stage in a container, which is removed once its end is known."""

    def __init__(self, container: Any, folder: Path) -> None:
        """Watch a container that was started on `folder`."""
        self._container, self._folder = container, folder
        self._code: int | None = None
        self._killed_for_memory = 0
        self._failure: Exception | None = None
        self.pid = self._process_id()
        self._watcher = threading.Thread(target=self._watch, name="container", daemon=True)
        self._watcher.start()

    @property
    def memory_kills(self) -> int:
        """1 where the container reached its memory limit, else 0."""
        return self._killed_for_memory

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, None while it runs; raises StageFailed if the engine is lost."""
        if self._watcher.is_alive():
            return None
        if self._failure:
            raise self._failure
        return self._code

    def dump(self) -> None:
        """Have every thread's stack written to log.txt."""
        with contextlib.suppress(APIError, *AWAY):
            self._container.kill(signal="SIGUSR1")

    def stop(self, patience_seconds: float = 5.0) -> None:
        """End the container: SIGTERM, then SIGKILL after `patience_seconds`."""
        if not self._watcher.is_alive():
            return
        with contextlib.suppress(APIError, *AWAY):
            if patience_seconds:
                self._container.stop(timeout=round(patience_seconds))
            else:
                self._container.kill()
        with contextlib.suppress(StageFailed):
            ended_within(self, LOST_SECONDS)

    def _process_id(self) -> int:
        with contextlib.suppress(APIError):
            self._container.reload()
        return int(self._container.attrs["State"].get("Pid", 0))

    def _watch(self) -> None:
        """Wait for the end, if need be through a restart of the engine; note its reason, remove the container."""
        try:
            code = self._wait()
            with contextlib.suppress(APIError):
                self._container.reload()
                self._killed_for_memory = int(self._container.attrs["State"].get("OOMKilled", False))
                self._container.remove(force=True)
            if self._killed_for_memory:
                note_limit(self._folder, self._container.attrs["HostConfig"]["Memory"])
            self._code = code if code <= 128 or code == STOPPED else 128 - code
        except Exception as error:
            self._failure = StageFailed(f"the Docker engine was lost while a stage ran in {self._folder.name}: {error}")

    def _wait(self) -> int:
        """Return the exit status; a container that was removed from outside counts as killed."""
        away_since: float | None = None
        while True:
            asked = time.monotonic()
            try:
                return int(self._container.wait()["StatusCode"])
            except NotFound:
                return REMOVED
            except AWAY:
                # The client's patience with a stage that runs on, unless it is refused at once.
                away_since = None if time.monotonic() - asked > 1 else away_since or asked
                if away_since and time.monotonic() - away_since > LOST_SECONDS:
                    raise
                time.sleep(0.2)


def note_limit(folder: Path, limit_bytes: int) -> None:
    """Write into a stage's log which limit it ran into."""
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write(
            f"\nout of memory: the container was killed at its limit of {limit_bytes / 2**30:.2f} GiB "
            "(SLIPWAY_CONTAINER_MEMORY_GIB raises it)\n"
        )


def labelled(client: Any, label: str) -> list[Any]:
    """Return the containers that carry a label, running or not."""
    found: list[Any] = client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
    return found


def reap_orphans(client: Any, settings: Settings) -> list[str]:
    """End every container of this home whose driver is gone; return the names of their folders."""
    reaped = []
    for container in labelled(client, f"{HOME_LABEL}={settings.home.absolute()}"):
        with abandoned(Path(container.labels[FOLDER_LABEL])) as nobody_drives_it:
            if nobody_drives_it:
                end(container)
                reaped.append(Path(container.labels[FOLDER_LABEL]).name)
    return reaped


@contextlib.contextmanager
def abandoned(folder: Path) -> Iterator[bool]:
    """Tell whether nobody drives a stage folder, and keep it so for as long as the block lasts."""
    lock = FileLock(folder.with_suffix(".lock"), timeout=0)
    if not folder.parent.is_dir():
        yield True
        return
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def end(container: Any) -> None:
    """Stop a container, work saved if it can, and remove it."""
    with contextlib.suppress(APIError):
        container.stop(timeout=5)
    with contextlib.suppress(APIError):
        container.remove(force=True)
