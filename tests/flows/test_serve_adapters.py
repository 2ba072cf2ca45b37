"""One base and two adapters in one bundle, served by the real service: `model` chooses who answers."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from containers.contract import Endpoint, Quantized, StageError, digest_of_file
from containers.formats import identity_of
from containers.package.contract import PackageConfig, PackageInputs
from containers.reference import Reference
from containers.serve.backends.choice import load_backend
from containers.serve.bundle import Served
from containers.serve.contract import ServeConfig
from containers.sockets import free_port
from infra.keys import local_key
from infra.service import start_service
from infra.settings import Settings
from tests.by_hand import run_by_hand, try_by_hand
from tests.small_adapters import CLERK, SAID, adapted_bundle, small_unmerged
from tests.small_bundle import KNOWN, small_bundle, small_quantized

NAMES = ["small", "small-base", "small-driver"]
QUESTION, COUNT = "What is 2+2?", "Count."
EACH = [(name, question) for name in NAMES for question in CLERK]


@pytest.fixture(scope="module")
def endpoint(settings: Settings) -> Endpoint:
    config = ServeConfig(port=free_port(), max_tokens=150, threads=1, slots=2, queue=64)
    return start_service(adapted_bundle(), config, settings)


@pytest.fixture
def client(settings: Settings, endpoint: Endpoint) -> OpenAI:
    return OpenAI(base_url=f"{endpoint.url}/v1", api_key=local_key(settings), max_retries=0)


def asked(question: str) -> list[Any]:
    return [{"role": "user", "content": question}]


def test_each_model_is_listed_with_the_digest_of_its_own_provenance(client: OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == NAMES
    src = adapted_bundle().path / "src"
    files = {"small": "adapters/clerk/made_of.json", "small-base": "provenance.json"}
    files["small-driver"] = "adapters/driver/made_of.json"
    for model in listed:
        told: Any = client.models.retrieve(model.id)
        assert told.provenance == digest_of_file(src / files[model.id])
    assert {tuple(told.adapters) for told in listed} == {(), ("clerk",), ("driver",)}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "question"), EACH)
def test_the_name_chooses_who_answers(client: OpenAI, name: str, question: str) -> None:
    reply = client.chat.completions.create(model=name, messages=asked(question))
    assert reply.choices[0].message.content == SAID[name][question]
    assert (reply.model, reply.system_fingerprint) == (name, adapted_bundle().version)
    chunks = list(client.chat.completions.create(model=name, messages=asked(question), stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == SAID[name][question]
    assert {chunk.model for chunk in chunks} == {name}


def test_a_name_that_is_not_there_is_refused_with_those_that_are(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="use 'small' or 'small-base' or 'small-driver'") as refused:
        client.chat.completions.create(model="small-admiral", messages=asked(QUESTION))
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("small-admiral")


def test_many_at_once_get_each_their_own_answer(settings: Settings, endpoint: Endpoint) -> None:
    async def answer(client: AsyncOpenAI, name: str, question: str) -> tuple[str, str | None]:
        reply = await client.chat.completions.create(model=name, messages=asked(question))
        return reply.model, reply.choices[0].message.content

    async def all_at_once() -> list[tuple[str, str | None]]:
        async with AsyncOpenAI(base_url=f"{endpoint.url}/v1", api_key=local_key(settings), max_retries=0) as client:
            return await asyncio.gather(*(answer(client, *one) for one in EACH * 8))

    assert asyncio.run(all_at_once()) == [(name, SAID[name][question]) for name, question in EACH * 8]


def test_what_one_model_left_in_a_slot_is_of_no_use_to_another(client: OpenAI) -> None:
    """The same long conversation, model after model: text and probabilities are those of the first time, for each."""
    talk = [*asked(COUNT), {"role": "assistant", "content": KNOWN[COUNT]}, *asked(QUESTION)]

    def said(name: str) -> tuple[str | None, list[float]]:
        reply = client.chat.completions.create(model=name, messages=talk, logprobs=True, max_tokens=12)
        choice = reply.choices[0]
        return choice.message.content, [token.logprob for token in choice.logprobs.content]  # type: ignore[union-attr]

    first = {name: said(name) for name in NAMES}
    for name in [*reversed(NAMES), *NAMES, NAMES[-1], *reversed(NAMES)]:
        text, log_probs = said(name)
        # The last token of a prompt is read alone where the rest is in the cache: sums in another order.
        assert text == first[name][0] and log_probs == pytest.approx(first[name][1], abs=0.01), name


def test_over_http_each_says_what_it_says_in_transformers(client: OpenAI) -> None:
    src = adapted_bundle().path / "src"
    for name, model in Served.open(src).manifest.models.items():
        exchange = Reference.read(src / model.reference).exchanges[0]
        reply = client.chat.completions.create(
            model=name, messages=list(exchange.messages), max_tokens=len(exchange.answer), logprobs=True
        )  # type: ignore[call-overload]
        assert reply.choices[0].message.content == SAID[name][QUESTION]
        told = [token.logprob for token in reply.choices[0].logprobs.content]
        assert told == pytest.approx(exchange.log_probs[: len(told)], abs=0.05)


# What the bundle holds, and what is refused.


@pytest.mark.parametrize("format", ["f16", "q8_0"])
def test_the_proof_covers_every_model(tmp_path: Path, format: str) -> None:
    inputs = PackageInputs(quantized=small_quantized(format), adapters=small_unmerged())
    config = PackageConfig(name="small", adapters="unmerged")
    made, result = run_by_hand(tmp_path / "one", "package", config, inputs)
    card = json.loads((tmp_path / "one/outputs/card/card.json").read_text())
    assert sorted(card["models"]) == NAMES
    for parity in card["models"].values():
        assert parity["engine"] == "llama.cpp" and parity["chats"] == 7 and parity["tokens"] > 20
        assert parity["mean_nats"] <= parity["allowed_mean_nats"] == (0.02 if format == "f16" else 0.5)
        if format == "f16":
            assert parity["answers_equal"] == parity["chats"]
    assert result.metrics["parity_mean_nats"] == card["models"]["small"]["mean_nats"]
    again, _ = run_by_hand(tmp_path / "another", "package", config, inputs)
    assert made.bundle.digest == again.bundle.digest
    readme = (made.bundle.path / "README.md").read_text()
    assert "| small-driver | base + driver |" in readme and "| small-base | base |" in readme
    bill = json.loads((made.bundle.path / "src/sbom.cdx.json").read_text())
    files = {part["name"]: part["hashes"][0]["content"] for part in bill["components"] if part["type"] == "file"}
    assert sorted(files) == ["clerk.gguf", "driver.gguf", "model.gguf"]
    assert files["driver.gguf"] == digest_of_file(made.bundle.path / "src/adapters/driver.gguf")


def test_adapters_that_answer_otherwise_than_in_transformers_are_refused(tmp_path: Path) -> None:
    """Each adapter under the other's name."""
    folder = tmp_path / "swapped"
    shutil.copytree(small_unmerged().path, folder)
    (folder / "clerk.gguf").rename(folder / "x")
    (folder / "driver.gguf").rename(folder / "clerk.gguf")
    (folder / "x").rename(folder / "driver.gguf")
    swapped = type(small_unmerged()).of(folder, base=small_unmerged().base, whole=small_unmerged().whole)
    inputs = PackageInputs(quantized=small_quantized(), adapters=swapped)
    failed, errors = try_by_hand(tmp_path / "run", "package", PackageConfig(adapters="unmerged"), inputs)
    assert failed == 2
    assert "otherwise than its 16-bit model in transformers" in errors


def of_another_parent(folder: Path) -> Quantized:
    shutil.copytree(small_quantized().path, folder)
    return Quantized.of(folder, format="f16", parent="f" * 64, **identity_of(folder))


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        ("merged", lambda inputs, _: inputs, "package.adapters is merged, and some are handed in"),
        ("unmerged", lambda inputs, _: inputs.revise(adapters=None), "package.adapters is unmerged, and none are"),
        ("unmerged", lambda inputs, _: inputs.revise(quantized=small_quantized("bf16")), "beside a gguf alone"),
        (
            "unmerged",
            lambda inputs, folder: inputs.revise(quantized=of_another_parent(folder)),
            "and the weights were made of ffffffffffff",
        ),
    ],
    ids=["unasked", "missing", "safetensors", "base"],
)
def test_adapters_that_do_not_belong_are_refused(tmp_path: Path, config: Any, change: Any, said: str) -> None:
    inputs = change(PackageInputs(quantized=small_quantized(), adapters=small_unmerged()), tmp_path / "changed")
    failed, errors = try_by_hand(tmp_path / "run", "package", PackageConfig(adapters=config), inputs)
    assert failed == 2
    assert said in errors


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm", "transformers"])
def test_an_engine_that_cannot_serve_adapters_refuses_the_bundle(engine: Any) -> None:
    served = Served.open(adapted_bundle().path / "src")
    with pytest.raises(StageError, match=rf"serve.engine is {engine}, .* keeps adapters \(clerk, driver\)"):
        load_backend(served, ServeConfig(engine=engine), 128)


def test_an_adapter_that_was_changed_is_not_opened(tmp_path: Path) -> None:
    shutil.copytree(adapted_bundle().path, tmp_path / "bundle")
    file = tmp_path / "bundle/src/adapters/driver.gguf"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StageError, match=r"driver\.gguf has changed since the bundle was built"):
        Served.open(tmp_path / "bundle/src")


def test_a_bundle_of_one_model_is_as_it_was() -> None:
    manifest = Served.open(small_bundle().path / "src").manifest
    assert list(manifest.models) == ["small"] and manifest.models["small"].adapters == ()
