"""The store: a folder in it is whole, is found without reading it, and says so when it is not."""

import json
import os
from pathlib import Path

import pytest

from containers.contract import Request, Result, Tokenizer
from containers.tokenizer.contract import STAGE
from infra import store as module
from infra.prune import discard, waste
from infra.settings import Settings
from infra.store import Store, StoreError

PRINT = "ab" * 32


def staged(folder: Path, fingerprint: str = PRINT, text: str = "hello") -> Path:
    """Write a finished stage folder, as the tokenizer stage leaves one."""
    made = folder / "outputs" / "tokenizer"
    (made / "deep").mkdir(parents=True)
    (made / "tokenizer.json").write_text(text)
    (made / "deep" / "merges.txt").write_text("a b")
    (folder / "work").mkdir()
    artifact = Tokenizer.of(made, tokenizer="t", template="c", stop_ids=(0,))
    values = {"tokenizer": artifact.model_dump(mode="json") | {"path": "outputs/tokenizer"}}
    request = Request(stage="tokenizer", label="", fingerprint=fingerprint, code="", config={}, inputs={})
    result = Result(
        stage="tokenizer", fingerprint=fingerprint, outputs=values, metrics={"size": 1}, seconds=1, environment={}
    )
    (folder / "request.json").write_text(request.model_dump_json())
    (folder / "result.json").write_text(result.model_dump_json())
    return folder


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def published(store, tmp_path):
    return store.publish(staged(tmp_path / "staging" / "one"))


@pytest.fixture
def reads(monkeypatch):
    """Files that the store hashed."""
    seen: list[Path] = []
    original = module.digest_of_file

    def counting(file: Path) -> str:
        seen.append(file)
        return original(file)

    monkeypatch.setattr(module, "digest_of_file", counting)
    return seen


def test_what_is_published_is_found_without_reading_it(store, published, reads):
    found = store.find("tokenizer", PRINT)
    assert found == published
    assert found.address == f"tokenizer-{PRINT[:12]}"
    assert found.outputs(STAGE).tokenizer.path == published.folder / "outputs" / "tokenizer"
    assert found.outputs(STAGE).tokenizer.path.is_absolute()
    assert reads == []


def test_what_was_never_made_is_not_found(store, published):
    assert store.find("tokenizer", "cd" * 32) is None
    assert store.find("sft", PRINT) is None


def test_a_store_that_was_copied_is_hashed_once_and_used(store, published, reads):
    file = published.folder / "outputs" / "tokenizer" / "tokenizer.json"
    os.utime(file, (1, 1))
    assert store.find("tokenizer", PRINT) == published
    assert reads
    reads.clear()
    assert store.find("tokenizer", PRINT) == published
    assert reads == []


@pytest.mark.parametrize("harm", ["change", "remove", "add", "lose the result"])
def test_a_damaged_folder_is_set_aside(store, published, harm):
    made = published.folder / "outputs" / "tokenizer"
    if harm == "change":
        (made / "tokenizer.json").write_text("HELLO")
    elif harm == "remove":
        (made / "tokenizer.json").unlink()
    elif harm == "add":
        (made / "cache.arrow").write_text("x")
    else:
        (published.folder / "result.json").unlink()
    assert store.find("tokenizer", PRINT) is None
    assert store.addresses() == []
    assert published.folder.with_suffix(".damaged").is_dir()


def test_verify_sees_what_stats_do_not(store, published):
    file = published.folder / "outputs" / "tokenizer" / "tokenizer.json"
    before = file.stat()
    file.write_text("HELLO")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.verify(published.address) == ["outputs/tokenizer/tokenizer.json was changed"]


def test_another_fingerprint_of_the_same_address_is_refused(store, published):
    with pytest.raises(StoreError, match="another fingerprint"):
        store.find("tokenizer", PRINT[:12] + "cd" * 26)


def test_outputs_that_changed_after_they_were_hashed_are_refused(store, tmp_path):
    folder = staged(tmp_path / "staging" / "one")
    (folder / "outputs" / "tokenizer" / "tokenizer.json").write_text("later")
    with pytest.raises(StoreError, match="is not what tokenizer said it made"):
        store.publish(folder)
    assert store.addresses() == []


@pytest.mark.parametrize("path", ["../elsewhere", "work", "outputs/../work", "outputs/absent"])
def test_an_artifact_must_lie_in_outputs(store, tmp_path, path):
    folder = staged(tmp_path / "staging" / "one")
    result = json.loads((folder / "result.json").read_text())
    result["outputs"]["tokenizer"]["path"] = path
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(StoreError):
        store.publish(folder)


def test_publishing_again_keeps_the_first(store, published, tmp_path):
    assert store.publish(staged(tmp_path / "staging" / "two")).folder == published.folder
    assert store.verify(published.address) == []


def test_half_a_folder_in_the_way_is_replaced(store, tmp_path):
    half = store.folder_of("tokenizer", PRINT)
    half.mkdir(parents=True)
    (half / "result.json").write_text("{}")
    assert store.find("tokenizer", PRINT) is None
    store.publish(staged(tmp_path / "staging" / "one"))
    assert store.find("tokenizer", PRINT)


def test_fetch_copies_what_verifies(store, published, tmp_path):
    fetched = store.fetch(f"store:{published.address}", tmp_path / "mine")
    assert (fetched / "tokenizer" / "tokenizer.json").read_text() == "hello"
    (published.folder / "outputs" / "tokenizer" / "tokenizer.json").write_text("HELLO")
    with pytest.raises(StoreError, match="was changed"):
        store.fetch(published.address, tmp_path / "again")


def test_a_pin_names_an_artifact(store, published):
    pinned = store.artifact(f"store:{published.address}")
    assert pinned == store.artifact(f"store:{published.address}/tokenizer")
    assert isinstance(pinned, Tokenizer)
    with pytest.raises(StoreError, match="holds tokenizer"):
        store.artifact(f"store:{published.address}/model")
    with pytest.raises(StoreError, match="the store has no nothing"):
        store.artifact("store:nothing-0")


def test_waste_is_what_nobody_uses(store, published, tmp_path):
    other = store.publish(staged(tmp_path / "staging" / "two", "cd" * 32))
    (store.root / "sft-0.damaged").mkdir()
    settings = Settings(home=tmp_path)
    fresh = staged(tmp_path / "staging" / "sft-1", "ef" * 32)
    old = staged(tmp_path / "staging" / "sft-2", "ef" * 32)
    os.utime(old, (1, 1))
    found = waste(settings, {published.address})
    assert {w.folder for w in found} == {other.folder, store.root / "sft-0.damaged", old}
    assert next(w for w in found if w.folder == other.folder).bytes > 0
    for each in found:
        discard(each.folder)
    assert store.addresses() == [published.address]
    assert fresh.is_dir()
    assert not old.exists()
    assert not list(store.root.glob("*.removed"))
