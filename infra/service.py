"""The served bundle: one detached BentoML process per home, found again by its pid and start time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from containers.contract import Bundle, Endpoint, Frozen, StageError
from containers.out import write_last
from containers.serve.contract import ServeConfig
from infra.doctor import holder_of, is_free
from infra.keys import keys_file, local_key
from infra.probe import fetch
from infra.serve_elsewhere import want, wanted
from infra.settings import Settings
from infra.signing import check_signature, trust_in

STARTUP_SECONDS = 900
"""A large model takes minutes to load."""
PATIENCE_SECONDS = 5
"""How long the service may take to end beyond its own `drain_seconds`."""
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""Environment that the service may see: no secret is among it."""


class Service(Frozen):
    """<home>/serve/service.json: the process that was started last, and what it serves."""

    pid: int
    started: float
    """When the process began, in seconds since the epoch: tells it from a later one with the same pid."""
    bundle: Bundle
    config: ServeConfig

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
        host = "127.0.0.1" if self.config.host in ("0.0.0.0", "::") else self.config.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.config.port}"

    @property
    def process(self) -> psutil.Process | None:
        """The process itself, None when it has ended (a zombie has)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if same else None

    @property
    def endpoint(self) -> Endpoint | None:
        """What answers there, None unless it is this bundle and ready."""
        told = fetch(f"{self.url}/version") if self.process else None
        about = json.loads(told) if told else {}
        if about.get("version") != self.bundle.version:
            return None
        return Endpoint(url=self.url, model=about["model"], bundle=self.bundle.digest)


def start_service(bundle: Bundle, config: ServeConfig, settings: Settings) -> Endpoint:
    """Serve `bundle` and return once it answers; what is served already, and well, is left alone.

    Where another machine or container serves (`settings.serve_url`), it is told to. Raises StageError when the port is
    another program's, or when the service does not come up.
    """
    if settings.serve_url:
        return want(bundle, config, settings)
    with locked(settings):
        current = service_status(settings)
        if current and (current.bundle.digest, current.config) == (bundle.digest, config):
            endpoint = current.endpoint
            if endpoint:
                return endpoint
        if current:
            end(current)
        refuse_taken_port(config, settings)
        return launch(bundle, config, settings)


def refuse_taken_port(config: ServeConfig, settings: Settings) -> None:
    """Raise StageError where the port is held, and not by the service of this home, which would make room.

    Where another machine or container serves, the port is its own affair.
    """
    current = service_status(settings)
    if settings.serve_url or is_free(config.port) or (current and current.config.port == config.port):
        return
    raise StageError(
        f"port {config.port} is taken by {holder_of(config.port)}: stop it, or serve elsewhere with "
        f"`serve.port={config.port + 1}`"
    )


def stop_service(settings: Settings) -> bool:
    """End the service, answers under way first; return whether there was one."""
    with locked(settings):
        current = service_status(settings)
        if current:
            end(current)
        record_of(settings).unlink(missing_ok=True)
        return current is not None


def wanted_bundle(settings: Settings) -> Bundle | None:
    """Return the bundle that is to be served, whether or not it answers now; None where nothing was served yet."""
    if settings.serve_url:
        wish = wanted(settings)
        return wish.bundle if wish else None
    record = record_of(settings)
    return Service.model_validate_json(record.read_text(encoding="utf-8")).bundle if record.is_file() else None


def service_status(settings: Settings) -> Service | None:
    """Return the service if its process runs (its `endpoint` says whether it answers), else None."""
    record = record_of(settings)
    if not record.is_file():
        return None
    service = Service.model_validate_json(record.read_text(encoding="utf-8"))
    return service if service.process else None


def launch(bundle: Bundle, config: ServeConfig, settings: Settings) -> Endpoint:
    """Check the bundle's signature, start `bentoml serve` in a session of its own and wait until it answers."""
    check_signature(bundle, settings)
    settings.logs.mkdir(parents=True, exist_ok=True)
    local_key(settings)
    log = settings.logs / "serve.log"
    began = log.stat().st_size if log.exists() else 0
    address = ["--host", config.host, "--port", str(config.port)]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", ".", *address],
            cwd=bundle.path, env=environment(bundle, config, settings), stdin=subprocess.DEVNULL,
            stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    started = psutil.Process(process.pid).create_time()
    service = Service(pid=process.pid, started=started, bundle=bundle, config=config)
    write_last(record_of(settings), service.model_dump_json(indent=1))
    try:
        return first_answer(service, log, began)
    except BaseException:
        end(service)
        raise


def first_answer(service: Service, log: Path, began: int) -> Endpoint:
    """Wait until the service answers; raises StageError with what its log says when it does not."""
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and service.process and not refused(log, began):
        endpoint = service.endpoint
        if endpoint:
            return endpoint
        time.sleep(0.1)
    raise StageError(f"the service did not start; the end of its log, {log}:\n{last_words(log, began)}")


def environment(bundle: Bundle, config: ServeConfig, settings: Settings) -> dict[str, str]:
    """Return the whole environment of the service; byte code would change the bundle that lies in the store."""
    trust = trust_in(bundle, settings)
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {
        **passed,
        "SLIPWAY_SERVE": config.model_dump_json(),
        "SLIPWAY_KEYS": str(keys_file(settings).absolute()),
        "SLIPWAY_TRUSTED_KEY": str(trust.key),
        "SLIPWAY_SIGNATURE": str(trust.signature),
        "SLIPWAY_FEEDBACK": str((settings.home / "feedback").absolute()),
        "BENTOML_HOME": str(record_of(settings).parent / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def end(service: Service) -> None:
    """Ask the service to stop; whatever of it is left after its drain and PATIENCE_SECONDS is killed."""
    process = service.process
    if process is None:
        return
    family = [process, *process.children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=service.config.drain_seconds + PATIENCE_SECONDS)
    for member in left:
        member.kill()
    psutil.wait_procs(left, timeout=5)


def refused(log: Path, began: int) -> bool:
    """Whether the application said since `began` (bytes) that it cannot start; BentoML would try again for ever."""
    return "Application startup failed" in written(log, began)


def last_words(log: Path, began: int) -> str:
    """Return the errors that the service wrote since `began`, or its last lines."""
    lines = written(log, began).splitlines()
    errors = [line for line in lines if "Error" in line]
    return "\n".join(errors[-1:] or lines[-5:])


def written(log: Path, began: int) -> str:
    """Return what was appended to the log since it had `began` bytes."""
    with log.open("rb") as stream:
        stream.seek(began)
        return stream.read().decode(errors="replace")


def record_of(settings: Settings) -> Path:
    """Return the path of service.json."""
    return settings.home / "serve" / "service.json"


def locked(settings: Settings) -> Any:
    """Return a lock, so that two runs do not start a service at once."""
    folder = record_of(settings).parent
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "lock")
