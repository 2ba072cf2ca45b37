"""A stage in a container: what it may do, what it leaves, and what is said when it ends badly. All of it for real."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from infra.failures import BadInput
from infra.gpus import GPUs, free_one, holders
from infra.runners.confinement import FOLDER_LABEL, GPU_LABEL, HOME_LABEL, RUNNING_LABEL
from infra.runners.container_gpus import asked, refusal
from infra.runners.docker import DockerRunner
from infra.settings import Settings
from infra.staging import locked
from tests.unit.little_house import LittleHouse, kill

ACTIONS = '''

def look(config, inputs, out):
    """Say what a container lets its stage do."""
    import fcntl
    import shutil
    import socket

    def refused(act):
        try:
            act()
        except OSError as error:
            return type(error).__name__
        return ""

    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
    tool = "/tmp/tool"
    shutil.copy("/bin/true", tool)
    found = {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")],
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "root_is_read_only": [refused(lambda: open(f"{place}/x", "w")) for place in ("/", "/usr", "/slipway", "/etc")],
        "input_is_read_only": refused(lambda: open(inputs.text.path / "part", "a")) if inputs.text else "",
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "outside": refused(lambda: socket.create_connection(("192.0.2.1", 80), 2)),
        "tmp_runs": subprocess.run([tool]).returncode,
        "first": open("/proc/1/comm").read().strip(),
        "pids": len([name for name in os.listdir("/proc") if name.isdigit()]),
        "environment": dict(os.environ),
        "socket": os.path.exists("/var/run/docker.sock"),
    }
    (out.artifact("card") / "seen.json").write_text(json.dumps(found))


def eat(config, inputs, out):
    hoard = []
    while True:
        hoard.append(os.urandom(2**24))
        out.progress(len(hoard), 10**6)


def leave(config, inputs, out):
    os._exit(config.size)


def count(config, inputs, out):
    """Take 40 steps of a tenth of a second, each kept in work/."""
    mark = out.work / "steps"
    done = int(mark.read_text()) if mark.exists() else 0
    out.record(begun_at=done)
    for step in range(done, 40):
        mark.with_suffix(".tmp").write_text(str(step + 1))
        mark.with_suffix(".tmp").rename(mark)
        out.progress(step + 1, 40)
        time.sleep(0.1)
'''


def made_ready(root: Path, stall_seconds: int = 600) -> LittleHouse:
    root.mkdir()
    house = LittleHouse(root, stall_seconds)
    main = house.stage / "main.py"
    main.write_text(main.read_text() + ACTIONS)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-m", "infra.images", "probe"], cwd=root, check=True, env=environment)
    return house


@pytest.fixture(scope="module")
def built_house(settings, tmp_path_factory):
    os.environ["SLIPWAY_IMAGE_TAG"] = "little"
    yield made_ready(tmp_path_factory.mktemp("little") / "house")
    del os.environ["SLIPWAY_IMAGE_TAG"]


@pytest.fixture
def house(built_house, tmp_path, monkeypatch):
    """The house with a fresh home; every probe of it runs in a container."""
    monkeypatch.setenv("SLIPWAY_RUNNER", "docker")
    built_house.home = tmp_path / "home"
    return built_house


def running(engine: Any, house: LittleHouse, *, ended: bool = False) -> list[Any]:
    return list(engine.containers.list(all=ended, filters={"label": f"slipway.home={house.home}"}))


def soon(condition: Any, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def at_step(house: LittleHouse, step: int) -> None:
    """Wait until a `count` probe has taken so many steps."""
    marks = lambda: [int(f.read_text()) for f in house.home.glob("staging/*/*/steps")]  # noqa: E731
    soon(lambda: max(marks(), default=0) >= step)


def last_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate(timeout=120)
    found: list[dict[str, Any]] = json.loads(said.splitlines()[-1])
    return found[0]


def seen_by(said: dict[str, Any]) -> dict[str, Any]:
    assert "error" not in said, said
    found: dict[str, Any] = json.loads((Path(said["path"]).parent / "card" / "seen.json").read_text())
    return found


def test_the_result_is_that_of_the_process_runner(engine, house, tmp_path, monkeypatch):
    inside = house.run({"action": "many", "size": 3}, text=str(house.root / "text"))
    monkeypatch.setenv("SLIPWAY_RUNNER", "process")
    outside = house.run({"action": "many", "size": 3}, home=tmp_path / "other", text=str(house.root / "text"))
    assert (inside["status"], inside["digest"]) == ("done", outside["digest"])
    assert inside["address"] == outside["address"]
    assert inside["heard"] == outside["heard"]
    assert not running(engine, house, ended=True)


def test_a_stage_can_do_nothing_but_its_work(house, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary-token")
    seen = seen_by(house.run({"action": "look"}, text=str(house.root / "text")))
    assert (seen["uid"], seen["gid"]) == ((10001, 10001) if os.getuid() == 0 else (os.getuid(), os.getgid()))
    assert seen["capabilities"] == [0] * 5 and seen["no_new_privileges"] == "1"
    assert all(seen["root_is_read_only"]) and seen["input_is_read_only"]
    assert seen["interfaces"] == ["lo"] and seen["outside"]
    assert seen["tmp_runs"] == 0
    assert seen["first"] in ("docker-init", "tini", "init") and seen["pids"] < 10
    assert not seen["socket"]
    environment = seen["environment"]
    assert "canary-token" not in json.dumps(environment)
    assert environment["HOME"].startswith(str(house.home / "cache")) and environment["HF_HUB_OFFLINE"] == "1"
    assert environment["PATH"].startswith("/opt/slipway/bin")
    assert str(house.root) not in environment.get("PYTHONPATH", "")


def test_too_much_memory_is_said_as_that_with_the_limit(engine, house, monkeypatch):
    monkeypatch.setenv("SLIPWAY_CONTAINER_MEMORY_GIB", "0.25")
    said = house.run({"action": "eat"})
    assert said["error"] == "StageFailed" and "ran out of memory" in said["message"]
    assert "limit of 0.25 GiB (SLIPWAY_CONTAINER_MEMORY_GIB raises it)" in said["message"]
    assert not running(engine, house, ended=True)


def test_an_exit_code_is_said(engine, house):
    said = house.run({"action": "leave", "size": 3})
    assert said["error"] == "StageFailed" and "failed (exit code 3)" in said["message"]
    crash = house.run({"action": "crash"})
    assert "the number was wrong" in crash["message"] and "failed (exit code 1)" in crash["message"]
    bad = house.run({"action": "bad"})
    assert (bad["error"], bad["message"]) == ("BadInput", "train.jsonl:7: no such word: write another")
    assert not running(engine, house, ended=True)


def test_a_container_killed_from_outside_is_said_as_that_and_its_work_is_kept(engine, house):
    started = house.start({"action": "count"})
    at_step(house, 5)
    running(engine, house)[0].kill()
    said = last_line(started)
    assert said["error"] == "StageFailed" and "was killed from outside" in said["message"]
    again = house.run({"action": "count"})
    assert again["status"] == "done" and again["metrics"]["begun_at"] >= 5


def test_a_container_removed_from_outside_is_said_as_killed(engine, house):
    started = house.start({"action": "count"})
    at_step(house, 5)
    running(engine, house)[0].remove(force=True)
    assert "was killed from outside" in last_line(started)["message"]


def test_cancelling_stops_the_container_and_the_run_can_be_continued(engine, house):
    began = time.monotonic()
    said = house.run({"action": "count"}, cancel_after=3)
    assert said["error"] == "Cancelled" and said["status"] == "stopped"
    assert time.monotonic() - began < 3 + 10 + 5
    assert not running(engine, house, ended=True)
    again = house.run({"action": "count"})
    assert again["status"] == "done" and again["metrics"]["begun_at"] > 0


@pytest.mark.parametrize("action", ["count", "stubborn"])
def test_ctrl_c_stops_the_container_within_ten_seconds(engine, house, action):
    started = house.start({"action": action})
    container = soon(lambda: running(engine, house))[0]
    soon(lambda: list(house.home.glob("staging/*/*/steps")) + list(house.home.glob("staging/*/*/pids")))
    began = time.monotonic()
    started.send_signal(signal.SIGINT)
    soon(lambda: not running(engine, house), 10)
    assert time.monotonic() - began < 10
    started.communicate(timeout=30)
    assert container.id not in [c.id for c in running(engine, house, ended=True)]


def test_what_a_killed_worker_left_running_is_ended_and_gone_on_with(engine, house):
    started = house.start({"action": "count"})
    at_step(house, 3)
    left = running(engine, house)[0]
    kill(started)
    left.reload()
    assert left.status == "running"
    again = house.run({"action": "count"})
    assert again["status"] == "done" and again["metrics"]["begun_at"] >= 3
    assert left.id not in [c.id for c in engine.containers.list(all=True)]


def test_another_run_reaps_what_a_killed_worker_left_but_nothing_that_is_driven(engine, house):
    killed = house.start({"action": "count", "size": 1})
    at_step(house, 1)
    kill(killed)
    left = running(engine, house)[0]
    driven = house.start({"action": "count", "size": 2})
    soon(lambda: [c for c in running(engine, house) if c.id != left.id])
    house.run({"action": "write"}, sweep=True)
    assert left.id not in [c.id for c in engine.containers.list(all=True)]
    assert last_line(driven)["status"] == "done"


def test_a_stage_may_take_longer_than_the_engine_to_answer(house, monkeypatch):
    monkeypatch.setenv("SLIPWAY_DOCKER_TIMEOUT_SECONDS", "2")
    assert house.run({"action": "count"})["status"] == "done"


def test_a_silent_stage_is_stopped_and_its_stacks_shown(engine, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("SLIPWAY_IMAGE_TAG", "silent")
    monkeypatch.setenv("SLIPWAY_RUNNER", "docker")
    house = made_ready(tmp_path / "house", stall_seconds=2)
    said = house.run({"action": "silent"})
    assert said["error"] == "StageFailed" and "said nothing for 2 s" in said["message"]
    assert "deep_inside" in said["message"]
    assert not running(engine, house, ended=True)


def test_an_absent_engine_is_said_with_the_way_out(house, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    said = house.run({"action": "write"})
    assert said["error"] == "BadInput"
    assert "no Docker engine answers at unix:///nowhere/docker.sock" in said["message"]
    assert "SLIPWAY_RUNNER=process" in said["message"]


def test_a_stale_image_is_refused_before_anything_runs(house):
    main = house.stage / "main.py"
    before = main.read_text()
    main.write_text(before.replace('"word "', '"Word "'))
    said = house.run({"action": "write"})
    main.write_text(before)
    assert said["error"] == "BadInput" and "make images STAGES=probe" in said["message"]


def test_a_gpu_that_the_engine_cannot_give_is_said_with_the_way_out(engine, house, settings):
    names, reason = asked(engine, "little")
    if names:
        pytest.skip("this engine gives GPUs")
    error = refusal("sft", reason)
    assert isinstance(error, BadInput) and "NVIDIA Container Toolkit" in str(error), reason


def test_a_container_that_is_paused_for_a_while_is_waited_for(engine, house):
    started = house.start({"action": "count"})
    at_step(house, 2)
    container = running(engine, house)[0]
    container.pause()
    time.sleep(2)
    container.unpause()
    assert last_line(started)["status"] == "done"


def test_a_gpu_is_free_once_the_container_on_it_is_reaped(engine, house):
    """A worker's lock dies with it, its container trains on: the label keeps the GPU until the container is ended."""
    settings = Settings(home=house.home, gpu_locks=house.home / "gpus", image_tag="little")
    runner = DockerRunner(settings)
    folder = house.home / "staging" / "probe-000000000000"
    folder.mkdir(parents=True)
    labels = {HOME_LABEL: str(house.home), FOLDER_LABEL: str(folder), RUNNING_LABEL: "probe", GPU_LABEL: "GPU-test"}
    container = engine.containers.run(
        "slipway/probe:little", entrypoint=["sleep", "600"], labels=labels, network_mode="none", detach=True, init=True
    )
    gpus = GPUs(("GPU-test",), settings.gpu_locks, runner.gpus_in_use)
    with locked(folder):
        assert free_one(gpus, "sft") is None
        assert holders(gpus) == [f"GPU-test is held by probe (container {container.short_id})"]
    began = time.monotonic()
    lease = free_one(gpus, "sft")
    assert lease is not None and time.monotonic() - began < 60
    lease.end()
    assert container.id not in [c.id for c in engine.containers.list(all=True)]
