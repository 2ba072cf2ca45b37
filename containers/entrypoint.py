"""The inside half of the contract: read the request, run the stage, write the result last.

Run a stage by hand on a folder that holds a request.json:  python -m containers.entrypoint FOLDER
(`--tied` kills it when its standard input closes, which is how a runner's death reaches it where nothing else does;
`--log` sends what it prints to FOLDER/log.txt, which is how it is started in a container.)
"""

import contextlib
import faulthandler
import fcntl
import importlib
import os
import platform
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from containers.code import Code, CodeMismatch
from containers.contract import Artifact, Config, Frozen, Request, Result, Stage, StageError, Unhealthy, artifacts_in
from containers.out import Out, write_last
from containers.processes import redirect

FAILED, BAD_INPUT, STOPPED = 1, 2, 128 + signal.SIGTERM
LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "datasets",
    "tokenizers",
    "gguf",
    "bentoml",
)


class Stopped(BaseException):
    """The host asked the stage to stop (SIGTERM)."""


def stage_named(word: str) -> Stage[Any, Any, Any]:
    """Return the STAGE of containers/<word>/contract.py."""
    stage: Stage[Any, Any, Any] = importlib.import_module(f"containers.{word}.contract").STAGE
    return stage


def main(folder: Path) -> int:
    """Run what `folder`/request.json asks for; return the exit code (0, 1 failed, 2 bad input, 143 stopped)."""
    answer_signals()
    request = Request.model_validate_json((folder / "request.json").read_text(encoding="utf-8"))
    out = Out(folder)
    try:
        with held(folder):
            run_request(request, folder, out)
    except StageError as error:
        out.say(str(error), level="error")
        return BAD_INPUT
    except Stopped:
        out.say("stopped", level="warning")
        return STOPPED
    except (CodeMismatch, BlockingIOError, Unhealthy) as error:
        out.say(str(error), level="error")
        return FAILED
    except Exception:
        out.say(traceback.format_exc(), level="error")
        return FAILED
    finally:
        out.close()
    return 0


def run_request(request: Request, folder: Path, out: Out) -> None:
    """Call the stage's run() and write result.json; raises CodeMismatch where other code was asked for."""
    code = Code(request.stage)
    if request.code and request.code != code.digest:
        raise CodeMismatch(f"the code of {request.stage} here is not the code that was asked for: run it again")
    stage = stage_named(request.stage)
    config: Config = TypeAdapter(stage.config).validate_python(request.config)
    inputs = stage.inputs.model_validate(located(request.inputs, folder))
    program = importlib.import_module(f"containers.{request.stage}.main")
    if request.code:
        code.check_imported()
    began = time.monotonic()
    outputs = program.run(config, inputs, out)
    if request.code:
        code.check_imported()
    out.record(peak_memory_bytes=peak_memory_bytes())
    result = Result(
        stage=request.stage,
        fingerprint=request.fingerprint,
        outputs=relative(outputs, folder),
        metrics=out.recorded,
        seconds=round(time.monotonic() - began, 3),
        environment=environment(),
    )
    write_last(folder / "result.json", result.model_dump_json(indent=1))


def answer_signals() -> None:
    """SIGTERM raises Stopped in the main thread; SIGUSR1 writes every thread's stack to standard error."""

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped

    signal.signal(signal.SIGTERM, stop)
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[IO[str]]:
    """Hold the stage folder's lock; raises BlockingIOError naming the process that holds it."""
    with (folder / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise BlockingIOError(f"process {lock.read().strip()} is running this stage in {folder}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def tie_to_standard_input() -> None:
    """Kill this process group when standard input closes: the runner that holds its other end died."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def peak_memory_bytes() -> int:
    """Return the most memory that this process held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def located(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return request inputs with their relative artifact paths placed below `folder`."""

    def place(value: Any) -> Any:
        if isinstance(value, dict):
            placed = {key: place(item) for key, item in value.items()}
            if "path" in placed and "digest" in placed:
                placed["path"] = str(folder / placed["path"])
            return placed
        return [place(item) for item in value] if isinstance(value, list) else value

    return {name: place(value) for name, value in values.items()}


def relative(outputs: Frozen, folder: Path) -> dict[str, Any]:
    """Return outputs as JSON values with artifact paths relative to `folder`."""
    return placed(outputs, lambda _, artifact: artifact.path.relative_to(folder).as_posix())


def placed(values: Frozen, place: Callable[[str, Artifact], str]) -> dict[str, Any]:
    """Return inputs or outputs as JSON values, the path of each artifact being what `place(name, artifact)` says."""
    artifacts: dict[str, Artifact] = dict(artifacts_in(values))
    dumped = values.model_dump(mode="json")
    for name, artifact in artifacts.items():
        field, _, key = name.partition(".")
        value = dumped[field]
        if key:
            value = value[int(key)] if isinstance(value, list) else value[key]
        value["path"] = place(name, artifact)
    return dumped


def environment() -> dict[str, str]:
    """Return what the bits may depend on: interpreter, machine, library versions."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    if "--tied" in sys.argv:
        tie_to_standard_input()
    if "--log" in sys.argv:
        redirect(Path(sys.argv[1]) / "log.txt")
    sys.exit(main(Path(sys.argv[1])))
