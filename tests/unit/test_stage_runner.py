"""run_stage, with real processes: what it reuses, what it refuses, and what it says when a stage ends badly."""

import json
import random
import signal
import subprocess
from pathlib import Path

import pytest

from infra.store import Store
from tests.unit.little_house import LittleHouse, gone, is_alive, kill

WRITE = {"action": "write"}


@pytest.fixture
def house(tmp_path):
    return LittleHouse(tmp_path)


def test_a_stage_runs_once_and_is_reused(house):
    first = house.run(WRITE, label="a")
    assert first["status"] == "done"
    assert first["heard"][0] == ["started", "probe a", False]
    assert first["heard"][-1] == ["ended", "Result"]
    assert [h[0] for h in first["heard"][1:-1]] == ["metrics", "progress"] * 3
    assert first["metrics"]["size"] == 10
    folder = Path(first["path"]).parents[1]
    assert folder == house.home / "store" / first["address"]
    names = {"request.json", "result.json", "events.jsonl", "log.txt", "index.json", "outputs"}
    assert {f.name for f in folder.iterdir()} == names
    again = house.run({**WRITE, "note": "aside"}, label="b")
    assert (again["status"], again["digest"], again["path"]) == ("cached", first["digest"], first["path"])
    assert again["heard"] == [["started", "probe b", True], ["ended", "Result"]]


def test_code_counts_by_its_meaning(house):
    first = house.run(WRITE)
    main = house.stage / "main.py"
    main.write_text(main.read_text().replace("Call the action", "Do the deed") + "\n# a remark\n")
    other = house.root / "containers" / "tokenizer" / "main.py"
    other.write_text(other.read_text() + "\nANOTHER = 1\n")
    assert house.run(WRITE)["status"] == "cached"
    main.write_text(main.read_text().replace('"word "', '"Word "'))
    changed = house.run(WRITE)
    assert changed["status"] == "done"
    assert changed["digest"] != first["digest"]


def test_code_that_changes_under_the_run_is_refused(house):
    said = house.run(WRITE, edit="\nSNEAKED = 1\n")
    assert said["error"] == "StageFailed"
    assert "is not the code that was asked for" in said["message"]
    assert house.run(WRITE, edit="\n# a remark\n")["status"] == "done"


FAILURES = {
    "bad": ("BadInput", ["train.jsonl:7: no such word: write another"]),
    "crash": ("StageFailed", ["failed (exit code 1)", "the number was wrong", "log.txt"]),
    "hungry": ("StageFailed", ["ran out of memory"]),
    "shot": ("StageFailed", ["was killed from outside"]),
    "early": ("StageFailed", ["ended without a result"]),
    "hidden": ("StageFailed", ["containers.checkpoints", "import it by name"]),
    "link": ("StoreError", ["is a link to"]),
    "meddle": ("StageFailed", ["wrote into its input text", "text/cache.arrow"]),
}


def test_a_failure_says_why(house):
    said = house.runs(*({"action": action} for action in FAILURES), text=str(house.root / "text"))
    for (action, (error, words)), what in zip(FAILURES.items(), said, strict=True):
        assert (what.get("error"), what["status"]) == (error, "failed"), (action, what)
        assert all(word in what["message"] for word in words), (action, what["message"])
        assert what["heard"][-1] == ["ended", error]
    assert said[0]["message"] == FAILURES["bad"][1][0]
    assert not (house.home / "store").exists()


def test_a_failed_attempt_leaves_its_work_to_the_next(house):
    first, second = house.runs({"action": "resume"}, {"action": "resume"})
    assert first["status"] == "failed"
    assert second["metrics"]["tried_before"] == 1


def test_editing_a_running_stage_does_not_cost_its_result(house):
    assert house.run({"action": "edit"})["status"] == "done"


@pytest.mark.parametrize("plain", [False, True])
def test_a_silent_stage_is_stopped_and_its_stacks_shown(tmp_path, plain):
    house = LittleHouse(tmp_path, stall_seconds=5)
    said = house.run({"action": "silent"}, plain=plain)
    assert said["error"] == "StageFailed"
    assert "said nothing for 5 s" in said["message"]
    assert "deep_inside" in said["message"]


def test_a_listener_that_fails_costs_nothing(house):
    said = house.run(WRITE, broken_listener=True)
    assert said["status"] == "done"


def test_cancelling_stops_the_stage_and_what_it_started(house):
    running = house.start({"action": "family"}, cancel_after=3)
    pids = house.pids(3)
    said = json.loads(running.communicate(timeout=60)[0].splitlines()[-1])[0]
    assert (said["error"], said["status"]) == ("Cancelled", "stopped")
    assert gone(pids, 1)
    assert list(house.home.glob("staging/**/pids"))


@pytest.mark.parametrize("action", ["family", "stubborn"])
def test_ctrl_c_stops_the_stage_and_what_it_started(house, action):
    running = house.start({"action": action})
    pids = house.pids(3)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert gone(pids, 1)


@pytest.mark.parametrize("plain", [False, True])
def test_a_killed_host_leaves_no_stage_running(house, plain):
    running = house.start({"action": "stubborn"}, plain=plain)
    pids = house.pids(3)
    kill(running)
    watched = pids[:2] if plain else pids
    assert gone(watched), [pid for pid in watched if is_alive(pid)]


def test_one_attempt_at_a_time(house):
    running = house.start({"action": "wait"})
    house.pids(1)
    said = house.run({"action": "wait"})
    kill(running)
    assert said["error"] == "FolderBusy"
    assert f"process {running.pid} is running" in said["message"]


def test_only_what_is_declared_reaches_a_stage(house, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    said = house.run({"action": "surroundings"})
    found = json.loads((Path(said["path"]).parent / "card" / "environment.json").read_text())
    assert "secret" not in found.values()
    assert "HTTPS_PROXY" not in found
    assert found["HF_HUB_OFFLINE"] == "1"
    contract = house.stage / "contract.py"
    contract.write_text(contract.read_text().replace("preload=", 'fetches=True, secrets=("HF_TOKEN",), preload='))
    said = house.run({"action": "surroundings"})
    found = json.loads((Path(said["path"]).parent / "card" / "environment.json").read_text())
    assert (found["HF_TOKEN"], found["HTTPS_PROXY"]) == ("secret", "http://proxy")
    assert "HF_HUB_OFFLINE" not in found
    assert "AWS_SECRET_ACCESS_KEY" not in found


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_run_leaves_the_store_absent_or_complete(house, kills):
    """kill -9 at points drawn from all that the host does to the disk, the last one too; the next run finishes."""
    reference = house.run(WRITE, home=house.root / "reference")
    points = random.Random(kills).sample(range(1, reference["disk"]), min(kills, reference["disk"] - 1))
    seen = set()
    for point in (*points, reference["disk"]):
        home = house.root / f"home-{point}"
        running = house.start(WRITE, home=home, die_at=point)
        running.communicate(timeout=120)
        assert running.returncode == -signal.SIGKILL
        store = Store(home / "store")
        complete = reference["address"] in store.addresses()
        seen.add(complete)
        assert not complete or store.verify(reference["address"]) == []
        again = house.run(WRITE, home=home)
        assert (again["digest"], again["status"]) == (reference["digest"], "cached" if complete else "done")
        assert store.verify(reference["address"]) == []
    assert seen == {False, True}


def test_a_run_killed_before_publication_is_published_by_the_next(house):
    made = house.run(WRITE)
    folder = house.home / "store" / made["address"]
    (folder / "index.json").unlink()
    folder.rename(house.home / "staging" / made["address"])
    again = house.run(WRITE)
    assert (again["status"], again["digest"]) == ("done", made["digest"])
    assert "progress" not in {h[0] for h in again["heard"]}


def test_a_full_disk_is_said_as_one(house):
    said = house.run({"action": "large", "size": 3_000_000}, file_bytes=2_000_000)
    assert said["error"] == "StageFailed"
    assert "ran out of disk space" in said["message"]
    assert not (house.home / "store").exists()


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_really_full_disk(house, tiny_disk):
    said = house.run({"action": "large", "size": 2_000_000}, home=tiny_disk)
    assert said["error"] in ("StageFailed", "StoreError")
    assert "disk space" in said["message"]
    assert not list(tiny_disk.glob("store/*"))
    assert house.run({"action": "large", "size": 2_000}, home=tiny_disk)["status"] == "done"
