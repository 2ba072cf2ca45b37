"""A copy of the house with one more stage in it, `probe`, that does whatever a test asks: nothing is registered here.

Stages are run through `drive.py` in a process of its own, so that a test can kill, interrupt and starve it for real.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

CONTRACT = '''
"""The probe stage."""

from containers.contract import Config, Dataset, Frozen, Stage, Tokenizer, aside


class ProbeConfig(Config):
    """What a test chooses."""

    action: str = "write"
    """A function of main.py."""
    size: int = 10
    """How much."""
    note: str = aside("")
    """Changes nothing."""


class ProbeInputs(Frozen):
    """What a test gives."""

    text: Dataset | None = None


class ProbeOutputs(Frozen):
    """What comes of it."""

    made: Dataset


STAGE = Stage("probe", ProbeConfig, ProbeInputs, ProbeOutputs, preload=("MODULE",), stall_seconds=STALL_SECONDS)
'''

MAIN = '''
"""Do what the test asks."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

from containers.contract import Dataset, StageError
from containers.out import Out
from containers.probe.contract import ProbeConfig, ProbeInputs, ProbeOutputs

PRELOADED = "MODULE" in sys.modules


def run(config: ProbeConfig, inputs: ProbeInputs, out: Out) -> ProbeOutputs:
    """Call the action, then write the text."""
    folder = out.artifact("made")
    (folder / "text").write_text("word " * config.size)
    for step in range(3):
        out.metrics(step, loss=3.0 - step)
        out.progress(step + 1, 3)
    globals()[config.action](config, inputs, out)
    out.record(size=config.size, preloaded=PRELOADED)
    out.write_card(size=config.size)
    return ProbeOutputs(made=Dataset.of(folder, role="corpus", rows={}))


def write(config, inputs, out):
    """Nothing more."""


def many(config, inputs, out):
    for number in range(200):
        (out.artifact("made") / f"{number}").write_bytes(bytes(5000))


def wait(config, inputs, out):
    (out.work / "pids").write_text(str(os.getpid()))
    for second in range(600):
        out.progress(second, 600)
        time.sleep(0.05)


def family(config, inputs, out):
    child = subprocess.Popen(["sleep", "600"])
    loner = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (out.work / "pids.tmp").write_text(f"{os.getpid()} {child.pid} {loner.pid}")
    (out.work / "pids.tmp").rename(out.work / "pids")
    wait_for_ever(out)


def wait_for_ever(out):
    while True:
        out.say("still here")
        time.sleep(0.1)


def stubborn(config, inputs, out):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    family(config, inputs, out)


def silent(config, inputs, out):
    def deep_inside():
        time.sleep(600)

    deep_inside()


def bad(config, inputs, out):
    raise StageError("train.jsonl:7: no such word: write another")


def crash(config, inputs, out):
    print("a last word on the log")
    raise ValueError("the number was wrong")


def hungry(config, inputs, out):
    bytearray(10**15)


def shot(config, inputs, out):
    os.kill(os.getpid(), signal.SIGKILL)


def early(config, inputs, out):
    sys.exit(0)


def meddle(config, inputs, out):
    (inputs.text.path / "cache.arrow").write_text("beside the input")


def hidden(config, inputs, out):
    importlib.import_module("containers." + "checkpoints")


def link(config, inputs, out):
    (out.artifact("made") / "link").symlink_to(inputs.text.path / "part")


def late(config, inputs, out):
    subprocess.Popen(["sh", "-c", f"sleep 0.2; true"])


def resume(config, inputs, out):
    mark = out.work / "attempts"
    tried = int(mark.read_text()) if mark.exists() else 0
    mark.write_text(str(tried + 1))
    out.record(tried_before=tried)
    if tried == 0:
        raise ValueError("once")


def surroundings(config, inputs, out):
    out.write_card(**{"size": config.size})
    (out.artifact("card") / "environment.json").write_text(json.dumps(dict(os.environ)))


def large(config, inputs, out):
    (out.artifact("made") / "large").write_bytes(bytes(config.size))


def edit(config, inputs, out):
    with open(__file__, "a") as file:
        file.write("\\nLATER = 1\\n")
    importlib.import_module("containers.probe.lazy")


def train(config, inputs, out):
    """Learn a line with two threads, eager and compiled."""
    import torch

    torch.set_num_threads(2)
    assert not torch.cuda.is_initialized()
    torch.manual_seed(0)
    x = torch.randn(4096, 64)
    y = x @ torch.randn(64, 1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1))
    step_of = torch.compile(lambda: torch.nn.functional.mse_loss(model(x), y)) if config.size else None
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(60):
        loss = step_of() if step_of else torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.metrics(step, loss=loss.item())
    out.record(loss=loss.item(), threads=torch.get_num_threads())
'''

DRIVE = '''
"""Run probes and print what became of them as the last line: python drive.py HOME CONFIGS_JSON [OPTIONS_JSON]."""

import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from containers.contract import Dataset
from containers.probe.contract import STAGE, ProbeConfig, ProbeInputs
from infra.launch import Launch, launching
from infra.runners.choice import runner_of
from infra.runners.process import ProcessRunner
from infra.settings import Settings
from infra.stage_runner import run_stage
from infra.store import Store


DISK = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate")


class Reaper:
    """Kills this very process at the n-th thing that it does to the disk."""

    def __init__(self, at):
        self.at, self.count, self.armed = at, 0, False
        sys.addaudithook(self.see)

    def see(self, event, args):
        if self.armed and event in DISK and "events.jsonl" not in str(args[0]):
            self.count += 1
            if self.count == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


class Notes:
    """A listener that keeps what it hears."""

    def __init__(self):
        self.heard = []

    def stage_started(self, run, request, cached):
        self.heard.append(["started", run.title, cached])
        reaper.armed = True
        if "edit" in options:
            file = Path("containers/probe/main.py")
            file.write_text(file.read_text().replace("Do what", "Do just what") + options["edit"])
        if "cancel_after" in options:
            threading.Timer(options["cancel_after"], launch.cancelled.set).start()

    def stage_event(self, run, event):
        self.heard.append([event["event"]])
        print("EVENT", json.dumps(event), flush=True)
        if options.get("broken_listener"):
            raise RuntimeError("the ledger is closed")

    def stage_ended(self, run, outcome):
        self.heard.append(["ended", type(outcome).__name__])


def wait_for_successor(runner):
    """Wait until the server that has imported the probe's modules waits for work."""
    first = runner._server.pid
    while True:
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        if children and "poll" in Path(f"/proc/{children[0]}/wchan").read_text():
            return
        time.sleep(0.05)


home, config = Path(sys.argv[1]), json.loads(sys.argv[2])
options = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
if "file_bytes" in options:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (options["file_bytes"],) * 2)
notes, said, reaper = Notes(), [], Reaper(options.get("die_at", 0))
settings = Settings(home=home)
text = Dataset.of(Path(options["text"]), role="corpus", rows={}) if "text" in options else None
plain = options.get("plain")
runner = ProcessRunner(settings, ("probe",), forks=False) if plain else runner_of(settings, ("probe",))
with launching(Launch(settings, Store(settings.store), runner, (notes,))) as launch:
    if options.get("warm"):
        runner.warm()
        wait_for_successor(runner)
    if options.get("sweep"):
        runner.warm()
    for each in config:
        notes.heard.clear()
        try:
            outputs = run_stage(STAGE, ProbeConfig(**each), ProbeInputs(text=text), label=options.get("label", ""))
            what = {"path": str(outputs.made.path), "digest": outputs.made.digest}
        except Exception as error:
            what = {"error": type(error).__name__, "message": str(error)}
        record = launch.stages[-1]
        what |= {"status": record.status, "address": record.address, "metrics": record.metrics}
        what["disk"] = reaper.count
        said.append({**what, "heard": list(notes.heard)})
print(json.dumps(said))
'''


class LittleHouse:
    """The copy, its home for stores, and ways to run its probe."""

    def __init__(self, root: Path, stall_seconds: int = 600, module: str = "colorsys") -> None:
        self.root = root
        self.home = root / "home"
        for room in ("containers", "infra"):
            shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "constraints.txt", root)
        groups = (
            (ROOT / "pyproject.toml")
            .read_text()
            .replace("[dependency-groups]", '[dependency-groups]\nprobe = ["torch"]')
        )
        (root / "pyproject.toml").write_text(groups)
        self.stage = root / "containers" / "probe"
        self.stage.mkdir()
        (self.stage / "__init__.py").write_text('"""Probe."""\n')
        (self.stage / "lazy.py").write_text('"""Imported late."""\n')
        (self.stage / "contract.py").write_text(
            CONTRACT.replace("STALL_SECONDS", str(stall_seconds)).replace("MODULE", module)
        )
        (self.stage / "main.py").write_text(MAIN.replace("MODULE", module))
        (root / "drive.py").write_text(DRIVE)
        (root / "text").mkdir()
        (root / "text" / "part").write_text("once upon a time")

    def start(self, *configs: dict[str, Any], home: Path | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start drive.py, which runs one probe after the other."""
        command = [sys.executable, "drive.py", str(home or self.home), json.dumps(configs), json.dumps(options)]
        environment = {**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def runs(self, *configs: dict[str, Any], home: Path | None = None, **options: Any) -> list[dict[str, Any]]:
        """Run probes; return what became of each."""
        said, _ = self.start(*configs, home=home, **options).communicate(timeout=300)
        last = said.splitlines()[-1]
        assert last.startswith("["), said
        return list(json.loads(last))

    def run(self, config: dict[str, Any], home: Path | None = None, **options: Any) -> dict[str, Any]:
        """Run one probe; return what became of it."""
        return self.runs(config, home=home, **options)[0]

    def pids(self, count: int) -> list[int]:
        """Return the process ids that the running probe wrote down, once it has."""
        for _ in range(600):
            found = [f.read_text().split() for f in self.home.glob("staging/**/pids")]
            if found and len(found[0]) == count:
                return [int(pid) for pid in found[0]]
            time.sleep(0.05)
        raise AssertionError("the probe never began")


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that ended and waits to be collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pids: list[int], seconds: float = 10) -> bool:
    """Wait until none of `pids` runs; return whether that came true."""
    deadline = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a driver the hard way, and collect it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
