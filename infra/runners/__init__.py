"""Where stages run: one small Protocol, one module per kind of place (`process`, `docker`, later `ray`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from containers.contract import Stage
from infra.gpus import GPUs

GPU = "SLIPWAY_GPU"
"""The variable in a stage's environment that hands it a leased GPU (its UUID)."""


class Attempt(Protocol):
    """One stage process (or container) that was started on a stage folder."""

    @property
    def pid(self) -> int:
        """The process whose group holds everything that the stage started."""
        ...

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        ...

    @property
    def memory_kills(self) -> int:
        """How many processes the kernel has killed for memory since it started (of it alone, where that is known)."""
        ...

    def dump(self) -> None:
        """Have every thread's stack written to log.txt."""
        ...

    def stop(self, patience_seconds: float = 5.0) -> None:
        """End it and everything it started: asked at first (SIGTERM), made to after `patience_seconds`."""
        ...


class Runner(Protocol):
    """A place to run stages in."""

    def warm(self) -> None:
        """Get ready while something else goes on, and end what killed drivers left behind; once is enough."""
        ...

    def reap(self, folder: Path) -> None:
        """End what a driver that was killed left running on `folder`; the caller holds its lock."""
        ...

    def gpus(self) -> GPUs:
        """Return the GPUs that it can hand to stages."""
        ...

    def start(self, folder: Path, stage: Stage[Any, Any, Any], environment: Mapping[str, str]) -> Attempt:
        """Run `folder`/request.json with `environment` and nothing else of ours; output goes to log.txt."""
        ...

    def close(self) -> None:
        """End everything that this runner started."""
        ...
