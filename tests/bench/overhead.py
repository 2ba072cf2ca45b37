"""What orchestration costs a stage: run_stage (fingerprint, fork, relay, verify, publish) against the same run().

python -m tests.bench.overhead   prints seconds per stage; the aim is at most one second each.

Both sides start as a fork of a process that has imported the stage's libraries, and do the same work; they take turns.
"""

import importlib
import os
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # As in every stage's environment.
os.environ["OMP_NUM_THREADS"] = "1"  # A pool of OpenMP threads, once used, does not survive the forks made here.

from containers.contract import Config, Dataset, Frozen, Model, Stage
from containers.formats import identity_of
from containers.out import Out
from containers.processes import redirect
from containers.sft.contract import STAGE as SFT
from containers.sft.contract import FullConfig, SFTInputs
from containers.tokenizer.contract import STAGE as TOKENIZER
from containers.tokenizer.contract import TokenizerConfig, TokenizerInputs
from infra.launch import Launch, launching
from infra.runners.process import ProcessRunner
from infra.settings import Settings
from infra.stage_runner import run_stage
from infra.store import Store
from tests.stages.small_corpus import small_corpus
from tests.stages.toy_chat import chats, write_chats, write_model

ROUNDS = 3
AIM_SECONDS = 1.0
VARIED = {"tokenizer": "vocab_size", "sft": "seed"}
Work = tuple[Stage[Any, Any, Any], Config, Frozen]


def works(folder: Path) -> list[Work]:
    """Return a stage that needs little and one that needs trl, each with a second or so to do."""
    corpus: Dataset = small_corpus(folder / "corpus", documents=4000)
    lessons = write_chats(folder / "chats", chats(64), chats(8, first=500))
    write_model(folder / "model")
    base = Model.of(folder / "model", **identity_of(folder / "model"))
    short = FullConfig(
        max_steps=6, max_length=256, batch_size=8, compile="off", precision="fp32", threads=1, validation_rows=8
    )
    return [
        (TOKENIZER, TokenizerConfig(vocab_size=512), TokenizerInputs(corpus=corpus)),
        (SFT, short, SFTInputs(base=base, instructions=lessons)),
    ]


def seconds_directly(work: Work, folder: Path) -> float:
    """Return how long run() takes in a fork of this process, which has imported the stage."""
    stage, config, inputs = work
    program = importlib.import_module(f"containers.{stage.word}.main")
    reading, writing = os.pipe()
    log = folder.with_suffix(".log")
    if os.fork() == 0:
        redirect(log)
        try:
            began = time.monotonic()
            program.run(config, inputs, Out(folder))
            os.write(writing, f"{time.monotonic() - began}".encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    os.wait()
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    assert told, log.read_text()
    return float(told)


def seconds_by_stage_runner(work: Work) -> float:
    """Return how long run_stage takes."""
    began = time.monotonic()
    run_stage(*work)
    return time.monotonic() - began


def warmed(settings: Settings, words: tuple[str, ...]) -> ProcessRunner:
    """Return a runner whose server has imported everything: it is warm when the last module's server waits."""
    runner = ProcessRunner(settings, words)
    runner.warm()
    settled = 0.0
    while settled < 3:
        busy = cpu_of_group(runner)
        time.sleep(0.5)
        settled = settled + 0.5 if cpu_of_group(runner) == busy else 0.0
    return runner


def cpu_of_group(runner: ProcessRunner) -> int:
    """Return the processor ticks that the fork server's session has used."""
    assert runner._server is not None
    fields = [f.read_text().rpartition(")")[2].split() for f in Path("/proc").glob("[0-9]*/stat")]
    return sum(int(f[11]) + int(f[12]) for f in fields if int(f[3]) == runner._server.pid)


def main() -> int:
    """Measure and print; return 1 where a stage misses the aim."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings = Settings(home=folder / "home")
        todo = works(folder)
        runner = warmed(settings, tuple(stage.word for stage, _, _ in todo))
        with launching(Launch(settings, Store(settings.store), runner)):
            missed = [measure(work, folder) for work in todo]
    return int(any(missed))


def measure(work: Work, folder: Path) -> bool:
    """Print one stage's figures; return whether it misses the aim."""
    stage, config, inputs = work
    direct, whole = [], []
    for turn in range(ROUNDS):
        # Another number each turn, of no weight, so that the store never has it.
        varied = config.revise(**{VARIED[stage.word]: getattr(config, VARIED[stage.word]) + turn})
        direct.append(seconds_directly((stage, varied, inputs), folder / f"direct-{stage.word}-{turn}"))
        whole.append(seconds_by_stage_runner((stage, varied, inputs)))
    overhead = statistics.median(whole) - statistics.median(direct)
    print(
        f"{stage.word:10} run() {statistics.median(direct):6.2f} s   run_stage {statistics.median(whole):6.2f} s   "
        f"overhead {overhead:5.2f} s (aim: {AIM_SECONDS} s)",
        flush=True,
    )
    return overhead > AIM_SECONDS


if __name__ == "__main__":
    sys.exit(main())
