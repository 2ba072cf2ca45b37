"""What a container costs a stage: run_stage by the docker runner against the same by the process runner.

python -m tests.bench.containers   prints seconds per stage; the aim is at most 1.5 s over a fresh process.

A forked process has its libraries imported already, which no container has: that is shown beside it.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.launch import Launch, launching
from infra.runners import Runner
from infra.runners.confinement import make_readable
from infra.runners.docker import DockerRunner
from infra.runners.process import ProcessRunner
from infra.settings import Settings
from infra.stage_runner import run_stage
from infra.store import Store
from tests.bench.overhead import VARIED, Work, warmed, works
from tests.containers import stand

ROUNDS = 3
AIM_SECONDS = 1.5


def main() -> int:
    """Measure and print; return 1 where a stage misses the aim."""
    client = stand.engine()
    if client is None or not stand.builder():
        print("no Docker engine with a BuildKit client here: nothing is measured")
        return 0
    tag = stand.prepare(client).image_tag
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        todo = works(folder)
        make_readable(folder)  # root writes weights as 0600, and a container's stage is somebody else
        stand.built(Settings(image_tag=tag), *(stage.word for stage, _, _ in todo))
        homes = {name: Settings(home=folder / name, image_tag=tag) for name in ("docker", "fresh", "forked")}
        runners: dict[str, Runner] = {
            "docker": DockerRunner(homes["docker"]),
            "fresh": ProcessRunner(homes["fresh"], forks=False),
            "forked": warmed(homes["forked"], tuple(stage.word for stage, _, _ in todo)),
        }
        found = {name: measured(todo, homes[name], runner) for name, runner in runners.items()}
    misses = [missed(stage.word, found) for stage, _, _ in todo]
    list_images(client, tag)
    return int(any(misses))


def measured(todo: list[Work], settings: Settings, runner: Runner) -> dict[str, float]:
    """Return the median seconds of run_stage for each stage; the runner is closed after."""
    taken: dict[str, list[float]] = {}
    with launching(Launch(settings, Store(settings.store), runner)):
        for stage, config, inputs in todo * ROUNDS:
            turns = taken.setdefault(stage.word, [])
            # Another number each turn, of no weight, so that the store never has it.
            varied = config.revise(**{VARIED[stage.word]: getattr(config, VARIED[stage.word]) + len(turns)})
            began = time.monotonic()
            run_stage(stage, varied, inputs)
            turns.append(time.monotonic() - began)
    return {word: statistics.median(turns) for word, turns in taken.items()}


def missed(word: str, found: dict[str, dict[str, float]]) -> bool:
    """Print one stage's figures; return whether it misses the aim."""
    overhead = found["docker"][word] - found["fresh"][word]
    print(
        f"{word:10} container {found['docker'][word]:6.2f} s   fresh process {found['fresh'][word]:6.2f} s   "
        f"forked process {found['forked'][word]:6.2f} s   overhead {overhead:5.2f} s (aim: {AIM_SECONDS} s)",
        flush=True,
    )
    return overhead > AIM_SECONDS


def list_images(client: Any, tag: str) -> None:
    """Print the size of every stage image that is there, and how much of it no other one shares."""
    named = {name: image for image in client.images.list() for name in image.tags if name.endswith(f":{tag}")}
    stages = {name: image for name, image in named.items() if "slipway.stage" in image.labels}
    layers = {name: image.attrs["RootFS"]["Layers"] for name, image in stages.items()}
    shared = sum(all(layer in others for others in layers.values()) for layer in next(iter(layers.values()), []))
    for name, image in sorted(stages.items()):
        filled = [entry for entry in reversed(image.history()) if entry["Size"] or entry["CreatedBy"].startswith("RUN")]
        own = sum(entry["Size"] for entry in filled[shared:])
        print(f"{name:20} {image.attrs['Size'] / 1e9:5.2f} GB, of which its own {own / 1e6:6.1f} MB")


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    sys.exit(main())
