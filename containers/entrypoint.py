"""The inside half of the contract: read the request, run the stage, write the result last.

Run a stage by hand on a folder that holds a request.json:  python -m containers.entrypoint FOLDER
"""

import importlib
import platform
import resource
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from containers.contract import Artifact, Frozen, Request, Result, Stage, StageError, artifacts_in
from containers.out import Out, write_last

FAILED, BAD_INPUT = 1, 2
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


def stage_named(word: str) -> Stage[Any, Any, Any]:
    """Return the STAGE of containers/<word>/contract.py."""
    stage: Stage[Any, Any, Any] = importlib.import_module(f"containers.{word}.contract").STAGE
    return stage


def main(folder: Path) -> int:
    """Run the stage asked for in `folder`/request.json; return the exit code (0, 1 failed, 2 bad input)."""
    request = Request.model_validate_json((folder / "request.json").read_text(encoding="utf-8"))
    out = Out(folder)
    try:
        run_request(request, folder, out)
    except StageError as error:
        out.say(str(error), level="error")
        return BAD_INPUT
    except Exception:
        out.say(traceback.format_exc(), level="error")
        return FAILED
    finally:
        out.close()
    return 0


def run_request(request: Request, folder: Path, out: Out) -> None:
    """Call the stage's run() and write result.json."""
    stage = stage_named(request.stage)
    config = TypeAdapter(stage.config).validate_python(request.config)  # sft's config is a union of types
    inputs = stage.inputs.model_validate(located(request.inputs, folder))
    program = importlib.import_module(f"containers.{request.stage}.main")
    began = time.monotonic()
    outputs = program.run(config, inputs, out)
    out.record(peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    result = Result(
        stage=request.stage,
        fingerprint=request.fingerprint,
        outputs=relative(outputs, folder),
        metrics=out.recorded,
        seconds=round(time.monotonic() - began, 3),
        environment=environment(),
    )
    write_last(folder / "result.json", result.model_dump_json(indent=1))


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
    artifacts: dict[str, Artifact] = dict(artifacts_in(outputs))
    values = outputs.model_dump(mode="json")
    for name, artifact in artifacts.items():
        field, _, key = name.partition(".")
        value = values[field]
        if key:
            value = value[int(key)] if isinstance(value, list) else value[key]
        value["path"] = artifact.path.relative_to(folder).as_posix()
    return values


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
    sys.exit(main(Path(sys.argv[1])))
