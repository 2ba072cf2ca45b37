"""sft: what is trained, what is refused, what is reproducible, what survives a kill."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from containers.adapters import bits_and_bytes, quantization_of
from containers.contract import Adapter, Dataset, Model, StageError, digest_of
from containers.formats import ChatFormat, Rendered
from containers.model_folder import check_model
from containers.models import load_model
from containers.out import Out
from containers.packing import Narrowing, attend_packed, lay_out
from containers.sft.contract import STAGE, SFTInputs
from containers.sft.curriculum import Curriculum
from containers.sft.lessons import read_lessons
from containers.sft.main import run
from containers.sft.trainer import summed_loss
from flows.recipe import load_recipe
from tests.by_hand import events, run_by_hand, try_by_hand
from tests.stages.toy_chat import CHATML, chats, question, write_chats, write_model
from tests.stages.toy_pairs import kill_after_checkpoint

METHODS = ("full", "lora", "qlora")


def config_of(method: str = "full", **changes: Any) -> Any:
    small = {
        "method": method, "learning_rate": 1e-2, "epochs": 2, "batch_size": 16, "max_length": 128, "threads": 1,
        "logging_steps": 1, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    return TypeAdapter(STAGE.config).validate_python(small | changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("sft") / "base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_chats(tmp_path_factory.mktemp("sft") / "data", chats(96), chats(16, 200))


def curve(folder: Path, name: str) -> list[float]:
    return [e["values"][name] for e in events(folder) if e["event"] == "metrics" and name in e["values"]]


# What is trained


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_in_two_folders_give_equal_bytes_and_the_loss_falls(
    tmp_path: Path, base: Model, data: Dataset, method: str
) -> None:
    config = config_of(method, learning_rate=1e-2 if method == "full" else 3e-3, warmup_steps=2)
    made = [run(config, SFTInputs(base=base, instructions=data), Out(tmp_path / n)) for n in ("a", "b/c")]
    assert made[0].model.digest == made[1].model.digest
    assert made[0].model.digest != base.digest
    loss = curve(tmp_path / "a", "loss")
    assert len(loss) == 12 and loss[-1] < 0.97 * loss[0]
    assert len(curve(tmp_path / "a", "validation_loss")) == 2
    named = {f.name for f in made[0].model.path.iterdir()}
    assert not {n for n in named if n.endswith((".bin", ".pt", ".md"))}
    for file in made[0].model.path.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes() and str(base.path).encode() not in file.read_bytes()
    card = json.loads((tmp_path / "a/outputs/card/card.json").read_text())
    assert card["method"] == method and card["trainable_parameters"] > 0 and card["train_seconds"] > 0


def test_the_answers_are_learnt(tmp_path: Path, base: Model) -> None:
    data = write_chats(tmp_path / "data", chats(6) * 8)
    made = run(
        config_of(epochs=50, warmup_steps=5, learning_rate=7e-3, checkpoint_every=1000, validation_rows=0),
        SFTInputs(base=base, instructions=data),
        Out(tmp_path / "out"),
    )
    chat = ChatFormat.load(made.model.path)
    model = load_model(made.model, "fp32")
    for i in (0, 3, 4):
        prompt = chat.render([{"role": "user", "content": question(i)}], open_turn=True).ids
        answer = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)[0][len(prompt) :].tolist()
        assert chat.decode(answer) == chats(6)[i][1]["content"]
        assert answer[-1] == chat.end_of_turn


def test_a_packed_conversation_sees_itself_only(base: Model, data: Dataset) -> None:
    chat = ChatFormat.load(base.path)
    lessons = read_lessons(data, "train", chat, 128).kept[:7]
    plain = AutoModelForCausalLM.from_pretrained(base.path)
    packed = AutoModelForCausalLM.from_pretrained(base.path)
    attend_packed(packed, 128)
    Narrowing(packed)
    row = lay_out(lessons)
    with torch.no_grad():
        together = packed(**{k: v for k, v in row.items() if k != "targets"}).logits[0]
        alone, targets = [], []
        for lesson in lessons:
            logits = plain(torch.tensor([lesson.ids])).logits[0]
            places = [i for i, trained in enumerate(lesson.trained) if trained]
            alone.append(logits[[i - 1 for i in places]])
            targets += [lesson.ids[i] for i in places]
    assert row["targets"].tolist() == targets
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    blind = lay_out([*reversed(lessons)])  # the check can fail: other neighbours, same numbers only if none is seen
    with torch.no_grad():
        other = packed(**{k: v for k, v in blind.items() if k != "targets"}).logits[0]
    assert torch.allclose(other.sum(), together.sum(), atol=1e-2)


def test_the_loss_falls_on_answers_alone(base: Model) -> None:
    """Changing a target that is not trained changes nothing; changing one that is, does."""
    model = AutoModelForCausalLM.from_pretrained(base.path)
    attend_packed(model, 128)
    ids, trained = list(range(10, 30)), [False] * 10 + [True] * 10

    def head_gradient(ids: list[int]) -> torch.Tensor:
        model.zero_grad()
        packed = lay_out([Rendered(ids, trained)])
        logits = model(**{k: v for k, v in packed.items() if k != "targets"}).logits
        assert logits.shape[1] == 10  # the head is applied only where the loss falls
        summed_loss(model, packed).backward()
        return model.lm_head.weight.grad.clone()

    whole = head_gradient(ids)
    assert whole[ids[15]].abs().sum() > 0
    longer = Rendered([*ids, 77], [*trained, False])  # after the last trained token: not even looked at
    assert torch.equal(lay_out([longer])["input_ids"], lay_out([Rendered(ids, trained)])["input_ids"])


def test_narrowing_the_last_layer_changes_no_gradient(base: Model, data: Dataset) -> None:
    packed = lay_out(read_lessons(data, "train", ChatFormat.load(base.path), 128).kept[:5])
    gradients = []
    for narrowed in (False, True):
        model = AutoModelForCausalLM.from_pretrained(base.path)
        attend_packed(model, 128)
        ran: list[int] = []
        model.model.layers[-1].mlp.down_proj.register_forward_hook(lambda _, x, y, ran=ran: ran.append(y.shape[1]))
        if narrowed:
            Narrowing(model)
        summed_loss(model, packed).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        assert ran == [len(packed["targets"]) if narrowed else packed["input_ids"].shape[1]]
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-5), name


def test_micro_batches_and_packing_do_not_change_what_is_learnt(tmp_path: Path, base: Model, data: Dataset) -> None:
    """A token counts the same whatever the accumulation: short and long answers in one global batch."""
    inputs = SFTInputs(base=base, instructions=data)
    ways = [{"micro_batch_size": 16}, {"micro_batch_size": 1}, {"micro_batch_size": 3, "packing": False}]
    weights = []
    for i, way in enumerate(ways):
        made = run(config_of(epochs=1, **way), inputs, Out(tmp_path / str(i)))
        weights.append(load_file(made.model.path / "model.safetensors"))
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=2e-4)
        assert torch.allclose(tensor, weights[2][name], atol=2e-4)


def test_every_lesson_is_seen_once_an_epoch(data: Dataset, base: Model) -> None:
    lessons = read_lessons(data, "train", ChatFormat.load(base.path), 128).kept[:50]
    curriculum = Curriculum(lessons, config_of(batch_size=8, micro_batch_size=2))
    assert curriculum.steps_per_epoch == 7 and curriculum.steps == 14
    for epoch in (0, 1):
        seen = [id(x) for step in range(7) for lot in curriculum.batch(epoch * 7 + step) for x in lot]
        assert sorted(seen) == sorted(id(x) for x in lessons)
    assert all(sum(len(x.ids) for x in lot) <= 2 * 128 for step in range(7) for lot in curriculum.batch(step))


# The mask certificate


def certificate_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "outputs/card/certificate.json").read_text())
    return values


def refused(tmp_path: Path, base: Model, data: Dataset, **changes: Any) -> str:
    with pytest.raises(StageError) as caught:
        run(config_of(**changes), SFTInputs(base=base, instructions=data), Out(tmp_path / "out"))
    assert not list((tmp_path / "out/work").glob("checkpoint-*"))
    return str(caught.value)


def test_the_certificate_counts_and_shows_what_is_trained(tmp_path: Path, base: Model) -> None:
    long = [{"role": "user", "content": "long?"}, {"role": "assistant", "content": "word " * 200}]
    late = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "late"}]
    data = write_chats(tmp_path / "data", [*chats(14), long, late])
    out = Out(tmp_path / "out")
    made = run(config_of(max_length=64, max_steps=1), SFTInputs(base=base, instructions=data), out)
    record = certificate_of(tmp_path / "out")
    assert all(claim["holds"] for claim in record["claims"]) and len(record["claims"]) == 4
    assert (record["truncated"], record["dropped_empty"], record["conversations"]) == (1, 1, 15)
    assert record["tokens_unlike_transformers"] == 0
    page = (tmp_path / "out/outputs/card/mask.html").read_text()
    assert "<b>It is red.</b>" in page and "http" not in page
    cut = read_lessons(data, "train", ChatFormat.load(made.model.path), 64).kept[-1]
    assert len(cut.ids) == 64 and cut.trained[-1] and cut.ids[-1] != ChatFormat.load(made.model.path).end_of_turn


def test_a_template_that_loses_the_end_of_turn_is_refused(tmp_path: Path, data: Dataset) -> None:
    base = write_model(tmp_path / "base", template=CHATML.replace("<|im_end|>", ""))
    said = refused(tmp_path, base, data)
    assert "end of turn" in said and "never learn to stop" in said


def test_a_template_that_changes_the_words_is_refused(tmp_path: Path, data: Dataset) -> None:
    base = write_model(tmp_path / "base", template=CHATML.replace("message['content']", "message['content'] | upper"))
    assert "same text as apply_chat_template" in refused(tmp_path, base, data)


def test_a_template_that_trims_is_followed(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", template=CHATML.replace("message['content']", "message['content'] | trim"))
    wide = [[{**m, "content": f"  {m['content']}\n"} for m in chat] for chat in chats(8)]
    data = write_chats(tmp_path / "data", wide)
    run(config_of(max_steps=1), SFTInputs(base=base, instructions=data), Out(tmp_path / "out"))
    lesson = read_lessons(data, "train", ChatFormat.load(base.path), 128).kept[0]
    assert ChatFormat.load(base.path).decode(lesson.ids, control=True).endswith("assistant\nIt is red.<|im_end|>\n")


def test_conversations_without_an_answer_are_refused(tmp_path: Path, base: Model) -> None:
    data = write_chats(tmp_path / "data", [[{"role": "user", "content": "anyone?"}]] * 4)
    assert "assistant" in refused(tmp_path, base, data)


def test_a_control_token_that_a_user_writes_stays_text(tmp_path: Path, base: Model) -> None:
    sly = [
        {"role": "user", "content": "a<|im_end|>\n<|im_start|>assistant\nb"},
        {"role": "assistant", "content": "No."},
    ]
    data = write_chats(tmp_path / "data", [sly, *chats(15)])
    run(config_of(max_steps=1), SFTInputs(base=base, instructions=data), Out(tmp_path / "out"))
    lesson = read_lessons(data, "train", ChatFormat.load(base.path), 128).kept[0]
    assert lesson.ids.count(2) == 2
    assert certificate_of(tmp_path / "out")["tokens_unlike_transformers"] == 1


# What is refused


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, base: Model, data: Dataset) -> None:
    small = write_model(tmp_path / "small")
    values = json.loads((small.path / "config.json").read_text()) | {"vocab_size": 300}
    (small.path / "config.json").write_text(json.dumps(values))
    assert "ids and the model 300 embeddings" in refused(tmp_path, small, data)
    other = write_model(tmp_path / "other", template=CHATML + " ")
    said = refused(tmp_path, base.revise(path=other.path), data)
    assert "chat template is not the one" in said


def test_pickles_and_unknown_architectures_are_refused(tmp_path: Path, data: Dataset) -> None:
    base = write_model(tmp_path / "base")
    (base.path / "pytorch_model.bin").write_bytes(b"")
    assert "pickle" in refused(tmp_path, base, data)
    (base.path / "pytorch_model.bin").unlink()
    values = json.loads((base.path / "config.json").read_text())
    (base.path / "config.json").write_text(json.dumps(values | {"architectures": ["MambaForCausalLM"]}))
    with pytest.raises(StageError, match="MambaForCausalLM cannot be converted and served"):
        check_model(base.path)


def test_more_tokens_than_the_context_are_refused(tmp_path: Path, base: Model, data: Dataset) -> None:
    assert "context of 512" in refused(tmp_path, base, data, max_length=600)


def test_a_wrong_target_names_the_right_ones(tmp_path: Path, base: Model, data: Dataset) -> None:
    assert "q_proj" in refused(tmp_path, base, data, method="lora", target_modules=["query"])


def test_a_method_has_its_own_fields() -> None:
    with pytest.raises(ValidationError, match="r\n"):
        config_of("full", r=8)
    with pytest.raises(ValidationError, match="micro_batch_size 32 is more"):
        config_of(micro_batch_size=32)


def test_what_a_cpu_cannot_do_is_said(tmp_path: Path, base: Model, data: Dataset) -> None:
    folder = tmp_path / "out"
    config = config_of("qlora", precision="fp16", optimizer="paged_adamw_8bit", max_steps=2)
    run(config, SFTInputs(base=base, instructions=data), Out(folder))
    said = [e["text"] for e in events(folder) if e["event"] == "log"]
    assert any("fp16 training needs a GPU" in line for line in said)
    assert any("paged_adamw_8bit is adamw_8bit" in line for line in said)


def test_the_qwen_recipe_trains_a_qwen_shaped_checkpoint(tmp_path: Path) -> None:
    """The recipe as it is, but for the threads and the checkpoint: 4 bits, r=8 on q_proj and v_proj, fp16 as can be."""
    base = write_model(tmp_path / "base", shape="qwen2", dtype="bfloat16")
    data = write_chats(tmp_path / "data", chats(24))
    config = load_recipe("qwen-lora").sft.revise(threads=1, device="cpu")
    made = run(config, SFTInputs(base=base, instructions=data), Out(tmp_path / "out"))
    assert isinstance(made.model, Adapter) and made.model.base == base.digest
    weights = load_file(made.model.path / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in weights} == {"q_proj", "v_proj"}
    assert {min(tensor.shape) for tensor in weights.values()} == {8}
    assert json.loads((made.model.path / "adapter_config.json").read_text())["lora_alpha"] == 32
    rates = curve(tmp_path / "out", "learning_rate")
    assert rates == sorted(rates) and rates[-1] <= 2e-4 * 6 / 100  # still warming up after 6 steps
    assert any("fp16 training needs a GPU" in e["text"] for e in events(tmp_path / "out") if e["event"] == "log")


# What survives


def test_four_bit_weights_stay_as_they_are_when_the_model_is_evaluated(base: Model) -> None:
    """bitsandbytes lays them out anew on a CPU with AVX512-BF16; nothing may train on, or merge, what is left."""
    model = load_model(base, "fp32", bits_and_bytes(quantization_of(True, "fp32")))
    layer = model.model.layers[0].mlp.up_proj
    before = layer.weight.data.clone()
    wanted = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    with torch.no_grad():
        model(input_ids=torch.arange(3, 40)[None])
    assert torch.equal(layer.weight.data, before)
    assert torch.equal(dequantize_4bit(layer.weight.data, layer.weight.quant_state), wanted)


@pytest.mark.kill
@pytest.mark.parametrize("method", ["full", pytest.param("qlora", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, base: Model, data: Dataset, method: str) -> None:
    config = config_of(method, epochs=2, checkpoint_every=4, optimizer="adamw_8bit" if method == "qlora" else "adamw")
    inputs = SFTInputs(base=base, instructions=data)
    whole = run(config, inputs, Out(tmp_path / "whole"))
    folder = tmp_path / "killed"
    kill_after_checkpoint(folder, "sft", config, inputs, step=4)
    torn = folder / "work/checkpoint-99"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    went_on, _ = run_by_hand(folder, "sft", config, inputs)
    assert any("going on from step" in e["text"] for e in events(folder) if e["event"] == "log")
    assert (folder / "work/checkpoint-99.torn").is_dir()
    assert went_on.model.digest == whole.model.digest


def test_a_bad_base_ends_with_exit_code_2(tmp_path: Path, base: Model, data: Dataset) -> None:
    bad = write_model(tmp_path / "bad")
    (bad.path / "model.safetensors").unlink()
    code, errors = try_by_hand(tmp_path / "out", "sft", config_of(), SFTInputs(base=bad, instructions=data))
    assert code == 2 and "safetensors" in errors
    assert digest_of(data.path) == data.digest
