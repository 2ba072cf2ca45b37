"""How errors reach a person: what, where, what to do; the traceback goes to a log whose path is printed."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


@contextmanager
def explained() -> Iterator[None]:
    """Leave the process with the exit code that an error means, having said what it is."""
    try:
        yield
    except SystemExit:
        raise
    except KeyboardInterrupt:
        tell("Interrupted. What was done is kept: the same command goes on from there.")
        sys.exit(INTERRUPTED)
    except BaseException as error:
        sys.exit(exit_code_of(error))


def exit_code_of(error: BaseException) -> int:
    """Say what went wrong and return its exit code."""
    from containers.contract import StageError
    from infra.embedded import ServerError
    from infra.failures import Cancelled, FolderBusy, StageFailed
    from infra.store import StoreError

    tell(f"error: {error}" if str(error) else f"error: {type(error).__name__}")
    if isinstance(error, StageError):
        return BAD_INPUT
    if isinstance(error, Cancelled):
        return INTERRUPTED
    if not isinstance(error, ServerError | FolderBusy | StageFailed | StoreError):
        tell(f"traceback: {write_traceback(error)}")
    return FAILED


def tell(text: str) -> None:
    """Print to standard error."""
    print(text, file=sys.stderr)


def write_traceback(error: BaseException) -> str:
    """Append the traceback to the log of failures; return its path."""
    from infra.settings import Settings

    logs = Settings().logs
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "failures.log").open("a", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)) + "\n")
    return str(logs / "failures.log")
