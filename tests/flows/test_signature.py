"""A bundle is signed where it is packaged, and one that differs in anything is refused before its weights are read."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from containers.contract import Bundle, StageError
from containers.package.contract import STAGE
from containers.serve import desk
from containers.serve.contract import ServeConfig
from containers.serve.desk import Desk, Place
from containers.signatures import INSIDE, Trust, fingerprint, sign, verify
from containers.sockets import free_port
from infra.launch import Launch, launching
from infra.planning import planning
from infra.runners.process import ProcessRunner
from infra.service import service_status, start_service
from infra.settings import Settings
from infra.signing import new_private_key, own_public_key, sign_bundle, signing_key, trust_in
from infra.store import Store
from tasks.package import package
from tests.small_bundle import small_bundle, small_quantized, small_scores
from tests.unit.test_cli import slipway


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home that makes its own key."""
    return Settings(home=tmp_path_factory.mktemp("home"), signing_key=None)


@pytest.fixture
def bundle(tmp_path: Path, home: Settings) -> Bundle:
    """A signed copy, laid out as in the store."""
    shutil.copytree(small_bundle().path, tmp_path / "outputs/bundle")
    copy = small_bundle().revise(path=tmp_path / "outputs/bundle")
    sign_bundle(copy, home)
    return copy


def opened(bundle: Bundle, trust: Trust, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start what the service starts; loading the weights ends the test."""

    def loaded(*_: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(desk, "load_backend", loaded)
    Desk(bundle.path / "src", Place(ServeConfig(authentication="none"), trust=trust))


def flipped(file: Path) -> bytes:
    """Flip one bit in the middle of a file; return what it held."""
    before = file.read_bytes()
    after = bytearray(before or b"\0")
    after[len(after) // 2] ^= 1
    file.write_bytes(after)
    return before


def test_a_home_makes_one_key_that_its_user_alone_can_read(home: Settings) -> None:
    first = signing_key(home).read_bytes()
    assert signing_key(home) == home.home / "keys/signing.pem"
    assert signing_key(home).read_bytes() == first
    assert signing_key(home).stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in own_public_key(home).read_bytes()
    assert [f.name for f in sorted((home.home / "keys").iterdir())] == ["signing.pem", "trusted.pem"]


def test_a_signed_bundle_gets_as_far_as_its_weights(
    bundle: Bundle, home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match="the weights were read"):
        opened(bundle, trust_in(bundle, home), monkeypatch)


def test_a_flipped_bit_in_any_file_is_refused_by_name(
    bundle: Bundle, home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = trust_in(bundle, home)
    files = [file for file in sorted(bundle.path.rglob("*")) if file.is_file()]
    assert len(files) > 40
    said = set()
    for file in files:
        before = flipped(file)
        with pytest.raises(StageError, match="has changed since the bundle was signed") as refused:
            opened(bundle, trust, monkeypatch)
        said.add(str(refused.value))
        assert str(file) in str(refused.value)
        file.write_bytes(before)
    assert len(said) == len(files)
    verify(bundle.path, trust)


def test_a_file_that_is_gone_is_refused_by_name(
    bundle: Bundle, home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in [file for file in sorted(bundle.path.rglob("*")) if file.is_file()]:
        kept = file.read_bytes()
        file.unlink()
        with pytest.raises(StageError, match="is missing since the bundle was signed") as refused:
            opened(bundle, trust_in(bundle, home), monkeypatch)
        assert str(file) in str(refused.value)
        file.write_bytes(kept)


@pytest.mark.parametrize("name", ["src/more.py", ".gitignore", ".git/config", "src/containers/__pycache__/api.pyc"])
def test_a_file_that_was_added_is_refused_by_name(
    bundle: Bundle, home: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (bundle.path / name).parent.mkdir(exist_ok=True)
    (bundle.path / name).write_text("x")
    with pytest.raises(StageError, match=rf"{name} was added since the bundle was signed"):
        opened(bundle, trust_in(bundle, home), monkeypatch)


def swap_template(bundle: Bundle, _: Trust) -> None:
    file = bundle.path / "src/model/chat_template.jinja"
    file.write_text(file.read_text().replace("assistant", "oracle"))


def link_weights(bundle: Bundle, _: Trust) -> None:
    file = bundle.path / "src/model/model.gguf"
    file.rename(bundle.path.parent / "model.gguf")
    file.symlink_to(bundle.path.parent / "model.gguf")


def drop_signature(_: Bundle, trust: Trust) -> None:
    trust.signature.unlink()


def sign_otherwise(bundle: Bundle, trust: Trust) -> None:
    other = bundle.path.parent / "other.pem"
    other.write_bytes(new_private_key())
    sign(bundle.path, other, trust.signature)


def claim_another_key(bundle: Bundle, trust: Trust) -> None:
    """Sign with another key, and say that it was the trusted one."""
    sign_otherwise(bundle, trust)
    told = json.loads(trust.signature.read_text())
    told["verificationMaterial"]["publicKey"]["hint"] = fingerprint(trust.key)
    trust.signature.write_text(json.dumps(told))


def cut_signature(_: Bundle, trust: Trust) -> None:
    trust.signature.write_bytes(trust.signature.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swap_template, "the chat template .* has changed since the bundle was signed"),
        (link_weights, "holds a symbolic link"),
        (drop_signature, "is not signed"),
        (sign_otherwise, "was signed with another key than the trusted one"),
        (claim_another_key, "bundle.sig is damaged, it is not what the key signed"),
        (cut_signature, "bundle.sig is damaged"),
    ],
)
def test_each_way_to_tamper_is_refused_in_its_own_words(
    bundle: Bundle,
    home: Settings,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Bundle, Trust], None],
    said: str,
) -> None:
    trust = trust_in(bundle, home)
    change(bundle, trust)
    with pytest.raises(StageError, match=said):
        opened(bundle, trust, monkeypatch)
    with pytest.raises(StageError, match=said):
        start_service(bundle, ServeConfig(port=free_port()), home)
    assert service_status(home) is None
    assert not (home.logs / "serve.log").exists() or not (home.logs / "serve.log").read_bytes()


def test_the_service_itself_refuses_what_was_not_signed(bundle: Bundle, home: Settings, tmp_path: Path) -> None:
    """By hand, without `slipway serve` before it: the signature travels in the bundle, the trusted key beside it."""
    trust = trust_in(bundle, home)
    shutil.copyfile(trust.signature, bundle.path / INSIDE)
    verify(bundle.path, trust)
    flipped(bundle.path / "README.md")
    done = subprocess.run(
        [sys.executable, "-B", "-m", "uvicorn", "containers.serve.service:app", "--port", str(free_port())],
        cwd=bundle.path / "src", env={"SLIPWAY_TRUSTED_KEY": str(trust.key), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "README.md has changed since the bundle was signed" in done.stderr


def test_a_key_that_is_none_is_said_to_be_none(bundle: Bundle, home: Settings, tmp_path: Path) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_text("no key")
    with pytest.raises(StageError, match=r"odd.pem is no public key to trust"):
        verify(bundle.path, Trust(odd, trust_in(bundle, home).signature))
    with pytest.raises(StageError, match=r"odd.pem is no private key to sign with .*openssl"):
        sign(bundle.path, odd, tmp_path / "sig")
    with pytest.raises(StageError, match=r"SLIPWAY_SIGNING_KEY names .* no such file"):
        signing_key(home.model_copy(update={"signing_key": tmp_path / "none.pem"}))
    with pytest.raises(StageError, match=r"SLIPWAY_TRUSTED_KEY names .* no such file"):
        trust_in(bundle, home.model_copy(update={"trusted_key": tmp_path / "none.pem"}))


def test_what_is_packaged_is_signed_and_a_signature_that_is_gone_is_not_made_up_for(
    home: Settings, tmp_path: Path
) -> None:
    config = STAGE.config(name="small")
    with planning(home, "plan") as plan, launching(plan.launch):
        package(small_quantized(), (small_scores(),), config)
    with launching(Launch(home, Store(home.store), ProcessRunner(home))):
        made = package(small_quantized(), (small_scores(),), config)
        trust = trust_in(made, home)
        verify(made.path, trust)
        assert Store(home.store).verify(made.path.parent.parent.name) == []
        trust.signature.unlink()
        assert package(small_quantized(), (small_scores(),), config) == made
    assert not trust.signature.exists()
    address = made.path.parent.parent.name
    done = slipway(home.home, "sign", address)
    assert done.returncode == 0, done.stderr
    assert f"{address} is signed" in done.stdout
    flipped(made.path / "README.md")
    refused = slipway(home.home, "sign", address)
    assert refused.returncode == 2
    assert "is not as it was published, so it is not signed: outputs/bundle/README.md was changed" in refused.stderr
