"""The runner that the settings name."""

from collections.abc import Iterable

from infra.runners import Runner
from infra.runners.process import ProcessRunner
from infra.settings import Settings


def runner_of(settings: Settings, words: Iterable[str] = ()) -> Runner:
    """Return a runner for the stages called `words` (default: all); nothing is started yet."""
    if settings.runner == "docker":
        from infra.runners.docker import DockerRunner

        return DockerRunner(settings, words)
    return ProcessRunner(settings, words)
