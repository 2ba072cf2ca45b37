"""The quantize stage: formats that load where they are served, measured against a trained parent; one ships."""

import json

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from containers.contract import Dataset, Model, StageError, digest_of
from containers.formats import ChatFormat, identity_of, schema_of
from containers.out import Out
from containers.quantize import main
from containers.quantize.calibrated import LAYOUTS, Rounding, calibration_of
from containers.quantize.config import QuantizeConfig
from containers.quantize.contract import QuantizeInputs
from containers.quantize.engine import Engine
from containers.quantize.footprint import footprint
from containers.quantize.gguf_writer import stored, write_gguf
from containers.quantize.k_quants import encode
from containers.quantize.measuring import Passage, given_tokens, read
from containers.quantize.shipping import SMALLEST, choose
from containers.quantize.solving import compared
from containers.quantized_folder import load_folder
from tests.by_hand import run_by_hand, try_by_hand
from tests.stages.toy_chat import WORDS, chats, question, write_model

FORMATS = ("f16", "q8_0", "q5_k_m", "q4_k_m", "q4_0", "nf4", "int8", "fp8")
CONFIG = QuantizeConfig(threads=1, max_tokens=512, formats=FORMATS, max_new_tokens=24)
Q4_0, Q4_K, Q5_K, Q6_K = (getattr(gguf.GGMLQuantizationType, name) for name in ("Q4_0", "Q4_K", "Q5_K", "Q6_K"))


def train(folder, rows, steps=120):
    """Teach the model in `folder` the token rows, so that its likeliest token stands out."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        batch = [torch.tensor(row) for row in rows[step % 4 :: 4]]
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return loss.item()


def texts(count=48):
    return [" ".join(m["content"] for m in chat) for chat in chats(count)]


def write_corpus(folder):
    (folder / "test").mkdir(parents=True)
    schema = schema_of("corpus")
    rows = [dict.fromkeys(schema.names) | {"text": text} for text in texts()]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "test" / "part-0.parquet")
    return Dataset.of(folder, role="corpus", rows={"test": len(rows)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained Llama-shaped model and the text it knows."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("trained")
    write_model(root / "model")
    chat = ChatFormat.load(root / "model")
    assert train(root / "model", [chat.encode(text) for text in texts()]) < 1.0
    return Model.of(root / "model", **identity_of(root / "model")), write_corpus(root / "corpus")


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """Which colour, asked as in the text that the model knows."""
    folder = tmp_path_factory.mktemp("problems")
    (folder / "test").mkdir()
    schema = schema_of("problems")
    rows = [
        dict.fromkeys(schema.names) | {"messages": [{"role": "user", "content": question(i)}], "answer": WORDS[i % 6]}
        for i in range(24)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "test" / "part-0.parquet")
    return Dataset.of(folder, role="problems", rows={"test": len(rows)})


@pytest.fixture(scope="module")
def quantized(trained, problems, tmp_path_factory):
    """The stage's outputs, its folder, its card."""
    folder = tmp_path_factory.mktemp("quantize")
    inputs = QuantizeInputs(model=trained[0], corpus=trained[1], problems=problems)
    outputs, _ = run_by_hand(folder, "quantize", CONFIG, inputs)
    return outputs, json.loads((folder / "outputs/card/card.json").read_text())


def test_every_format_is_measured_against_its_parent(quantized):
    outputs, card = quantized
    lines = {line["format"]: line for line in card["formats"]}
    assert list(lines) == list(FORMATS) == list(outputs.formats)
    assert abs(lines["f16"]["delta"]) < 0.001
    assert lines["f16"]["top1_agreement"] > 0.99
    assert abs(lines["q8_0"]["delta"]) < 0.005
    assert abs(lines["q4_0"]["delta"]) < 0.10
    assert abs(lines["q5_k_m"]["delta"]) < 0.02
    assert abs(lines["q4_k_m"]["delta"]) < 0.05
    assert abs(lines["int8"]["delta"]) < 0.02
    assert abs(lines["fp8"]["delta"]) < 0.02
    assert abs(lines["nf4"]["delta"]) < 0.20
    assert 0 <= lines["f16"]["kl_divergence"] < 1e-5 < lines["q4_0"]["kl_divergence"] < 0.05
    assert lines["q8_0"]["kl_divergence"] < lines["q4_k_m"]["kl_divergence"] < lines["q4_0"]["kl_divergence"]
    assert lines["q4_0"]["bytes"] < lines["q8_0"]["bytes"] < lines["f16"]["bytes"]


def test_every_format_answers_the_parents_problems(quantized):
    card = quantized[1]
    assert card["problems"] == 24
    assert card["parent_accuracy"] > 0.4
    for line in card["formats"]:
        assert line["accuracy"] - card["parent_accuracy"] == pytest.approx(line["accuracy_delta"])
        assert 0 < line["accuracy_p"] <= 1
    lines = {line["format"]: line for line in card["formats"]}
    assert lines["f16"]["accuracy_p"] == 1


def test_every_format_says_what_it_takes(quantized):
    for line in quantized[1]["formats"]:
        assert line["tokens_per_second"] > 10
        assert line["memory_bytes"] > 0.5 * line["bytes"]


def test_the_memory_of_a_larger_file_is_larger(tmp_path):
    """By less than the files differ: llama.cpp lays q4_0 out anew for the CPU, beside the pages of the file."""
    model = write_model(tmp_path / "model", hidden_size=512, intermediate_size=2048, num_hidden_layers=4)
    found = {}
    for format in ("f16", "q4_0"):
        write_gguf(model.path, tmp_path / f"{format}.gguf", format)
        found[format] = footprint(tmp_path / f"{format}.gguf", 64, 1)["memory_bytes"]
    saved = (tmp_path / "f16.gguf").stat().st_size - (tmp_path / "q4_0.gguf").stat().st_size
    assert found["f16"] - found["q4_0"] > 0.4 * saved


def test_the_smallest_within_the_bounds_ships(quantized):
    outputs, card = quantized
    shipped = [line["format"] for line in card["formats"] if line["shipped"]]
    assert shipped == [outputs.shipped.format] == [card["shipped"]]
    assert outputs.shipped == outputs.formats[shipped[0]]
    assert all(line["reason"] for line in card["formats"])


def test_what_belongs_to_the_weights_travels_with_each_format(trained, quantized):
    for made in quantized[0].formats.values():
        assert identity_of(made.path) == identity_of(trained[0].path)
        assert made.parent == trained[0].digest


def test_the_engine_answers_what_transformers_answers(trained, quantized):
    """Greedy, on a trained model: a random one's likeliest token is a coin toss. A near tie may fall either way."""
    outputs, _ = quantized
    chat = ChatFormat.load(trained[0].path)
    model = AutoModelForCausalLM.from_pretrained(trained[0].path).eval()
    with Engine(outputs.formats["f16"].path / "model.gguf", 128, 1) as engine:
        equal = 0
        for i in range(12):
            ids = chat.encode(question(i))
            made = model.generate(torch.tensor([ids]), max_new_tokens=10, do_sample=False, eos_token_id=None)
            wanted, found = made[0, len(ids) :].tolist(), engine.answer(ids, 10)
            apart = next((n for n, pair in enumerate(zip(wanted, found, strict=True)) if pair[0] != pair[1]), None)
            equal += apart is None
            if apart is not None:
                best = model(made[:, : len(ids) + apart]).logits[0, -1].topk(2).values
                assert best[0] - best[1] < 0.02
        assert equal >= 10


def test_the_engine_measures_what_transformers_measures(trained, quantized):
    """Log-probabilities token by token, across control tokens in the middle of a passage.

    The engine rounds what goes into each product to 16 bit and transformers does not: by how much that moves
    one token depends on the model, which each processor trains a little differently. The mean hardly moves.
    """
    chat = ChatFormat.load(trained[0].path)
    passages = [Passage(chat.render(row).ids, given_tokens(chat)) for row in chats(3)]
    passages.sort(key=lambda passage: len(passage.ids))
    wanted = read(AutoModelForCausalLM.from_pretrained(trained[0].path).eval(), passages)
    with Engine(quantized[0].formats["f16"].path / "model.gguf", 256, 1) as engine:
        found = engine.read(passages, lambda done: None)
    assert len(wanted.nats) == sum(len(p.ids) - 4 for p in passages)
    apart = np.abs(np.asarray(found.nats) - wanted.nats)
    assert apart.mean() < 0.005
    assert (apart > np.maximum(0.02, 0.005 * np.abs(wanted.nats))).mean() < 0.02
    assert apart.max() < 0.05


def test_the_divergence_is_a_close_lower_bound_of_the_whole_one(tmp_path):
    """Against KL over the whole vocabulary, of a random model and the same one with noise in its output."""
    write_model(tmp_path / "model", tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    model.lm_head.weight.data *= 12
    passages = [Passage(list(range(10, 74)), frozenset())]
    ids = torch.tensor([passages[0].ids[:-1]])
    with torch.inference_mode():
        parent, before = read(model, passages), model(input_ids=ids).logits[0].double().log_softmax(-1)
        assert parent.divergence_from(parent) == 0
        model.lm_head.weight.data += 0.1 * torch.randn_like(model.lm_head.weight)
        after = model(input_ids=ids).logits[0].double().log_softmax(-1)
    whole = (before.exp() * (before - after)).sum(-1).mean().item()
    found = read(model, passages).divergence_from(parent)
    assert whole > 0.01
    assert 0.3 * whole < found <= whole


def test_saved_bitsandbytes_weights_are_read_back_as_they_were(trained, quantized):
    """Reading and saving again gives the same tensors, after a forward pass of the first (which may pack them anew)."""
    for format in ("nf4", "int8"):
        folder = quantized[0].formats[format].path
        ids = torch.tensor([[5, 6, 7, 8]])
        first, second = (AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}).eval() for _ in range(2))
        assert torch.equal(first(ids).logits, second(ids).logits)
        assert torch.equal(first(ids).logits, second(ids).logits), "the second pass differs from the first"
        assert any(name.endswith((".absmax", ".SCB")) for name in load_file(folder / "model.safetensors"))


def test_floats_of_eight_bits_are_the_nearest_to_each_weight(trained, quantized):
    """By the definition of e4m3: within half a step of three bits of mantissa, or of the smallest number."""
    folder = quantized[0].formats["fp8"].path
    stored = load_file(folder / "model.safetensors")
    parent = AutoModelForCausalLM.from_pretrained(trained[0].path, dtype=torch.bfloat16).state_dict()
    packed = [name for name, value in stored.items() if value.dtype == torch.float8_e4m3fn]
    assert len(packed) == 14 and "lm_head.weight" not in packed
    for name in packed:
        scale, weight = stored[f"{name}_scale"].float(), parent[name].float()
        assert scale.shape == (len(weight), 1)
        apart = (stored[name].float() * scale - weight).abs()
        assert (apart <= weight.abs() / 16 + scale * 2**-10).all()
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "compressed-tensors" and settings["format"] == "float-quantized"


def test_twice_gives_the_same_bytes(trained, problems, quantized, tmp_path):
    """Memory and speed are measured on the way, and differ from run to run: they stand in no artifact."""
    inputs = QuantizeInputs(model=trained[0], corpus=trained[1], problems=problems)
    again, _ = run_by_hand(tmp_path, "quantize", CONFIG, inputs)
    assert {n: f.digest for n, f in again.formats.items()} == {n: f.digest for n, f in quantized[0].formats.items()}


SETTINGS = {
    "w4a16": {"quant_method": "compressed-tensors", "format": "pack-quantized"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True, "desc_act": False},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"},
}
PACKED = {"w4a16": "weight_packed", "gptq": "qweight", "awq": "qweight"}


@pytest.mark.slow
@pytest.mark.parametrize("format", LAYOUTS)
def test_integers_are_rounded_for_the_runs_own_text_and_read_back(tmp_path, trained, format):
    """In the layout asked for, the same bytes twice, and nearer to the parent than plain rounding."""
    model, chat = trained[0], ChatFormat.load(trained[0].path)
    passages = [Passage(chat.encode(text), given_tokens(chat)) for text in sorted(texts(20), key=len)]
    passages.sort(key=lambda passage: len(passage.ids))
    parent = read(AutoModelForCausalLM.from_pretrained(model.path).eval(), passages)
    found, corpus = {}, with_training_text(tmp_path / "corpus")
    for name, steps in (("learnt", 30), ("again", 30), ("nearest", 0)):
        config = QuantizeConfig(threads=1, calibration_samples=16, rounding_steps=steps)
        (tmp_path / name).mkdir()
        pieces = calibration_of(corpus, chat, 32, config)
        Rounding(pieces, config, tmp_path).write(model, tmp_path / name, format)
        reading = read(load_folder(tmp_path / name, torch.device("cpu")), passages)
        found[name] = reading.divergence_from(parent)
    settings = json.loads((tmp_path / "learnt/config.json").read_text())["quantization_config"]
    assert SETTINGS[format].items() <= settings.items()
    stored = load_file(tmp_path / "learnt/model.safetensors")
    assert sum(name.endswith(PACKED[format]) for name in stored) == 14
    assert found["learnt"] < found["nearest"] < 0.2
    assert digest_of(tmp_path / "learnt") == digest_of(tmp_path / "again")


@pytest.mark.parametrize("format", ["gptq", "awq"])
@pytest.mark.slow
def test_packed_integers_are_read_as_the_format_says(tmp_path, trained, format):
    """Each layer, unpacked here from the file by the layout's own definition, does what auto-round's kernel does."""
    config, model = QuantizeConfig(threads=1, rounding_steps=0), trained[0]
    Rounding([list(range(8, 40))], config, tmp_path).write(model, tmp_path, format)
    stored, read_model = load_file(tmp_path / "model.safetensors"), load_folder(tmp_path, "cpu")
    name = "model.layers.1.mlp.down_proj"
    weight = unpacked(format, {part: stored[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales")})
    parent = AutoModelForCausalLM.from_pretrained(model.path).get_submodule(name).weight
    assert (weight.T - parent).abs().mean() < 0.2 * parent.abs().mean()
    rows = torch.randn(5, weight.shape[0])
    with torch.inference_mode():
        made = read_model.get_submodule(name)(rows.half()).float()
    assert (made - rows @ weight).abs().max() < 0.02 * (rows @ weight).abs().max()


def unpacked(format, parts):
    """Return weights (in, out): eight 4-bit integers a word; along inputs in GPTQ, outputs (interleaved) in AWQ."""
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7] if format == "awq" else range(8))

    def nibbles(words):
        return (words[..., None] >> 4 * order) & 15

    integers, zeros, scales = nibbles(parts["qweight"]), nibbles(parts["qzeros"]), parts["scales"].float()
    if format == "gptq":  # zero points are stored less one
        integers, zeros = integers.transpose(1, 2), zeros + 1
    integers, zeros = integers.reshape(-1, scales.shape[1]), zeros.reshape(scales.shape)
    group = len(integers) // len(scales)
    return (integers - zeros.repeat_interleave(group, 0)) * scales.repeat_interleave(group, 0)


@pytest.mark.slow
def test_gptq_and_awq_are_measured_like_each_format(tmp_path, trained, problems):
    corpus = with_training_text(tmp_path / "corpus")
    config = CONFIG.revise(formats=("bf16", "gptq", "awq"), ship="awq", calibration_samples=16, rounding_steps=30)
    inputs = QuantizeInputs(model=trained[0], corpus=corpus, problems=problems)
    outputs, _ = run_by_hand(tmp_path / "run", "quantize", config, inputs)
    card = json.loads((tmp_path / "run/outputs/card/card.json").read_text())
    for line in card["formats"]:
        assert abs(line["delta"]) < 0.1 and line["top1_agreement"] > 0.85 and 0 <= line["kl_divergence"] < 0.05
        assert line["tokens_per_second"] > 10 and line["memory_bytes"] > 0.5 * line["bytes"]
        assert line["accuracy"] is not None and line["refused"] is None
    sizes = {line["format"]: line["bytes"] for line in card["formats"]}
    assert max(sizes["gptq"], sizes["awq"]) < 0.75 * sizes["bf16"]
    assert outputs.shipped.format == card["shipped"] == "awq"


def test_rows_that_cannot_be_packed_are_refused(tmp_path):
    model = write_model(tmp_path / "model", hidden_size=48, num_attention_heads=4, num_key_value_heads=2)
    (tmp_path / "made").mkdir()
    with pytest.raises(StageError, match="awq wants rows that divide by 32, and some have 48"):
        Rounding([[5] * 32], QuantizeConfig(threads=1), tmp_path).write(model, tmp_path / "made", "awq")


def with_training_text(folder):
    """The corpus whose train split is its test split: enough to round for."""
    dataset = write_corpus(folder)
    (folder / "train").mkdir()
    (folder / "train/part-0.parquet").write_bytes((folder / "test/part-0.parquet").read_bytes())
    return Dataset.of(folder, role="corpus", rows={"train": dataset.rows["test"], "test": dataset.rows["test"]})


def test_rounding_without_training_text_says_so(trained):
    chat = ChatFormat.load(trained[0].path)
    with pytest.raises(StageError, match="only 0 tokens of it"):
        calibration_of(trained[1], chat, 32, QuantizeConfig())


def test_a_foreign_pre_tokenizer_is_refused(tmp_path, trained):
    model = write_model(tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    values = json.loads(file.read_text())
    values["pre_tokenizer"] = {"type": "Whitespace"}
    file.write_text(json.dumps(values))
    model = Model.of(tmp_path / "model", **identity_of(tmp_path / "model"))
    code, error = try_by_hand(
        tmp_path / "run", "quantize", QuantizeConfig(formats=("f16",), threads=1),
        QuantizeInputs(model=model, corpus=trained[1]),
    )  # fmt: skip
    assert code == 2
    assert "pre_tokenizer" in error and "Whitespace" in error


def test_values_that_are_no_numbers_are_refused(tmp_path):
    write_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    model.model.norm.weight.data[3] = float("nan")
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(StageError, match=r"model\.norm\.weight holds NaN"):
        write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f16")


def lines_of(**measured):
    sizes = {"f16": 16, "bf16": 16, "q8_0": 8, "q4_0": 4, "nf4": 3}
    return [
        {"format": n, "bytes": sizes[n], "perplexity": 10 * (1 + d), "delta": d, "top1_agreement": a}
        for n, (d, a) in measured.items()
    ]


@pytest.mark.parametrize(
    ("measured", "first", "ships", "because"),
    [
        ({"f16": (0, 1), "q8_0": (0.001, 0.99), "q4_0": (0.04, 0.92)}, SMALLEST, "q4_0", "the smallest within"),
        ({"f16": (0, 1), "q8_0": (0.001, 0.99), "q4_0": (0.06, 0.95)}, SMALLEST, "q8_0", "; q4_0 did not pass: perp"),
        ({"f16": (0, 1), "q8_0": (0.001, 0.99), "q4_0": (0.01, 0.85)}, SMALLEST, "q8_0", "; q4_0 did not pass: top-1"),
        ({"f16": (0, 1), "q8_0": (0.08, 0.99), "q4_0": (0.2, 0.8)}, SMALLEST, "f16", "; q8_0 did not pass: perplexity"),
        ({"f16": (0, 0.8), "q4_0": (0, 0.8)}, SMALLEST, "f16", "no format is within the bounds, and 16 bit ends"),
        ({"f16": (0, 1), "nf4": (0, 1)}, SMALLEST, "f16", "the smallest within"),
        ({"f16": (0, 1), "q8_0": (0, 1), "q4_0": (0, 1)}, "q8_0", "q8_0", "named by the recipe, and within the bounds"),
        ({"f16": (0, 1), "q8_0": (0.2, 1), "q4_0": (0, 1)}, "q8_0", "f16", "; q8_0 did not pass: perplexity +20%"),
        (
            {"f16": (0, 1), "nf4": (0.2, 1), "bf16": (0, 1)},
            "nf4",
            "bf16",
            "the next of the chain within the bounds; nf4",
        ),
    ],
)
def test_the_gate(measured, first, ships, because):
    rows = lines_of(**measured)
    chosen = choose(rows, QuantizeConfig(formats=tuple(measured), ship=first))
    assert chosen["format"] == ships
    assert because in chosen["reason"]
    assert [row["shipped"] for row in rows] == [row["format"] == ships for row in rows]
    assert all(row["reason"] for row in rows)


@pytest.mark.parametrize(
    ("drop", "p", "ships"), [(0.05, 0.01, "q8_0"), (0.05, 0.2, "q4_0"), (0.01, 0.001, "q4_0"), (-0.05, 0.01, "q4_0")]
)
def test_the_gate_asks_for_a_drop_in_accuracy_that_is_no_chance(drop, p, ships):
    rows = lines_of(f16=(0, 1), q8_0=(0, 1), q4_0=(0, 1))
    rows[2] |= {"accuracy_delta": -drop, "accuracy_p": p}
    chosen = choose(rows, QuantizeConfig(formats=("f16", "q8_0", "q4_0")))
    assert chosen["format"] == ships
    assert ("q4_0 did not pass: accuracy -5 points (p = 0.01), allowed -2" in chosen["reason"]) == (ships == "q8_0")


def test_the_same_problems_are_marked_in_pairs():
    found = compared([True] * 8 + [False] * 2, [False] * 6 + [True] * 3 + [False])
    assert found == {"accuracy": 0.3, "accuracy_delta": -0.5, "accuracy_p": 0.125}
    assert set(compared([], []).values()) == {None}


def test_nothing_ships_when_16_bit_itself_is_far_from_the_parent():
    with pytest.raises(StageError, match=r"not even f16: perplexity \+7%, allowed \+5%"):
        choose(lines_of(f16=(0.07, 1), q4_0=(0.2, 0.8)), QuantizeConfig(formats=("f16", "q4_0")))


def test_a_format_that_is_not_made_cannot_ship():
    with pytest.raises(ValueError, match="names no gguf"):
        QuantizeConfig(formats=("nf4",))
    with pytest.raises(ValueError, match="not among the formats"):
        QuantizeConfig(formats=("f16",), ship="q8_0")


def planted(scale):
    """Return a writer that spoils q4_0 files: the scale of every block of one real tensor becomes `scale`."""

    def write(source, file, format):
        write_gguf(source, file, format)
        if format == "q4_0":
            tensor = next(t for t in gguf.GGUFReader(file).tensors if t.name == "blk.1.ffn_down.weight")
            data = bytearray(file.read_bytes())
            for block in range(tensor.n_elements // 32):
                place = tensor.data_offset + 18 * block
                data[place : place + 2] = np.float16(scale).tobytes()
            file.write_bytes(data)

    return write


@pytest.mark.parametrize(
    ("scale", "because"), [(40.0, "perplexity +"), (float("inf"), "llama.cpp cannot load model.gguf")]
)
def test_a_planted_bad_scale_is_stopped_by_the_gate_and_the_chain_falls_back(
    trained, tmp_path, monkeypatch, scale, because
):
    monkeypatch.setattr(main, "write_gguf", planted(scale))
    config = QuantizeConfig(threads=1, max_tokens=128, formats=("q4_0",))
    outputs = main.run(config, QuantizeInputs(model=trained[0], corpus=trained[1]), Out(tmp_path))
    assert outputs.shipped == outputs.formats["f16"]
    card = json.loads((tmp_path / "outputs/card/card.json").read_text())
    bad, good = card["formats"]
    assert (bad["format"], bad["shipped"]) == ("q4_0", False)
    assert (good["format"], good["shipped"]) == ("f16", True)
    assert because in bad["reason"] and because in good["reason"]


def test_rows_that_do_not_divide_into_blocks_stay_in_16_bit(tmp_path):
    write_model(tmp_path / "model", hidden_size=48, num_attention_heads=4, num_key_value_heads=2)
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", "q4_0")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == "F16"
    assert types["blk.0.ffn_down.weight"] == "Q4_0"
    assert types["output_norm.weight"] == "F32"
    with Engine(tmp_path / "model.gguf", 64, 1) as engine:
        assert len(engine.answer([5, 6, 7], 4)) > 0


def error_of(values, made, kind):
    return float(np.sqrt(((gguf.quants.dequantize(made, kind) - values) ** 2).mean()))


def test_k_quants_lose_less_than_the_plain_quants_of_their_size():
    """Root mean square error of rows that are normal, and of rows far from zero, which a mere scale cannot follow."""
    values = np.random.default_rng(0).standard_normal((96, 512)).astype(np.float32)
    for shift, bound in ((0, 0.86), (3, 0.5)):
        moved = values + np.float32(shift)
        plain = error_of(moved, gguf.quants.quantize(moved, Q4_0), Q4_0)
        four, five, six = (error_of(moved, encode(moved, kind), kind) for kind in (Q4_K, Q5_K, Q6_K))
        assert four < bound * plain
        assert five < 0.6 * four
        assert six < 0.6 * five or shift


def test_k_quants_do_not_depend_on_the_number_of_threads():
    values = np.random.default_rng(1).standard_normal((5000, 256)).astype(np.float32)
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made.append(encode(values, Q4_K).tobytes())
    finally:
        torch.set_num_threads(before)
    assert made[0] == made[1]


@pytest.mark.parametrize(("format", "most"), [("q4_k_m", "Q4_K"), ("q5_k_m", "Q5_K")])
def test_a_mixture_spends_bits_where_llama_cpp_does(tmp_path, format, most):
    model = write_model(tmp_path / "model", hidden_size=256, intermediate_size=512, num_hidden_layers=8)
    write_gguf(model.path, tmp_path / "model.gguf", format)
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    six = {name for name, kind in types.items() if kind == "Q6_K"}
    layers = (0, 3, 6, 7)
    assert six == {"token_embd.weight"} | {f"blk.{i}.{n}.weight" for i in layers for n in ("attn_v", "ffn_down")}
    assert set(types.values()) == {"F32", "Q6_K", most}
    assert stored(model.path, format) == {"tensors": {most: 48, "F32": 17, "Q6_K": 9}, "fallbacks": 0}
    reference = AutoModelForCausalLM.from_pretrained(model.path).eval()
    passages = [Passage(list(range(10, 74)), frozenset())]
    with Engine(tmp_path / "model.gguf", 64, 1) as engine:
        found = engine.read(passages, lambda done: None)
    assert np.abs(found.nats - read(reference, passages).nats).mean() < 0.08


def test_rows_that_do_not_divide_by_256_fall_back_as_in_llama_cpp(tmp_path, quantized):
    rows = {row["format"]: row for row in quantized[1]["formats"]}
    assert rows["q4_k_m"]["tensors"] == {"Q5_0": 12, "F32": 5, "Q8_0": 3}
    assert rows["q5_k_m"]["tensors"] == {"Q5_1": 12, "F32": 5, "Q8_0": 3}
    assert rows["q4_k_m"]["fallbacks"] == rows["q5_k_m"]["fallbacks"] == 15
    assert rows["q4_0"]["fallbacks"] == 0
