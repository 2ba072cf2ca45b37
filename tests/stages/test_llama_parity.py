"""Every shape that we convert, read by llama.cpp: the same log-probabilities as transformers, token by token."""

import json

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM

from containers.contract import StageError
from containers.formats import ChatFormat
from containers.pre_tokenizers import SPLITS
from containers.quantize.engine import Engine
from containers.quantize.gguf_rope import RopeScaling
from containers.quantize.gguf_writer import write_gguf
from containers.quantize.measuring import Passage, given_tokens, read
from tests.stages.toy_chat import CHATML, SPECIAL, write_model

ROPE = {"rope_type": "default", "rope_theta": 50000.0}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
SHAPES = {
    "llama": ("llama", {}),
    "llama, own head": ("llama", {"tie_word_embeddings": False}),
    "llama, wide heads": ("llama", {"head_dim": 32, "num_key_value_heads": 4}),
    "llama, another base": ("llama", {"rope_parameters": ROPE}),
    "llama, linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}),
    "llama 3": ("llama", {"rope_parameters": LLAMA3}),
    "llama, yarn": ("llama", {"rope_parameters": YARN}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
}
TEXTS = (
    "Hello, world! It's 12,345.67 and I'll be back.",
    "  two spaces,\ttab\n\nnew lines \r\n end  ",
    "caf\u00e9 stra\u00dfe \u4f60\u597d \u0645\u0631\u062d\u0628\u0627",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "def f(x):\n    return x**2  # <|im_end|> 007",
    "I'M SHE'LL 3rd 1st x\u00b2 \u0664\u0662 \u00a0nbsp",
    "",
)


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_probabilities(name, tmp_path):
    """A bias or a norm that is dropped shows only when it is not what it starts as: all are made random."""
    shape, changes = SHAPES[name]
    write_model(tmp_path / "model", shape, **changes)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    model.save_pretrained(tmp_path / "model")
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f16")
    chat = ChatFormat.load(tmp_path / "model")
    ids = torch.randint(0, chat.tokenizer.get_vocab_size(), (96,)).tolist()
    passage = Passage(ids, given_tokens(chat))
    wanted = read(model, [passage])
    with Engine(tmp_path / "model.gguf", 128, 1) as engine:
        found = engine.read([passage], lambda done: None)
    assert found.nats == pytest.approx(wanted.nats, abs=0.05)
    assert found.agreement(wanted) > 0.95


def write_bpe(folder, pre_tokenizer):
    """Write a byte-level BPE with a split of its own."""
    folder.mkdir()
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizer, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([text * 3 for text in TEXTS], trainer)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "chat_template.jinja").write_text(CHATML)


def splits():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found = {
        name: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), byte_level])
        for regex, name in SPLITS.items()
    }
    own = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    return found | {"gpt-2": own, "smollm": pre_tokenizers.Sequence([digits, own])}


@pytest.mark.parametrize("name", ["qwen2", "llama-bpe", "gpt-2", "smollm"])
def test_the_same_tokens(name, tmp_path):
    write_model(tmp_path / "model")
    write_bpe(tmp_path / "tokens", splits()[name])
    for file in (tmp_path / "tokens").iterdir():
        file.rename(tmp_path / "model" / file.name)
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f16")
    chat = ChatFormat.load(tmp_path / "model")
    with Engine(tmp_path / "model.gguf", 64, 1) as engine:
        for text in TEXTS:
            assert engine.encode(text) == chat.encode(text)


def test_positions_that_cannot_be_converted_are_refused():
    with pytest.raises(StageError, match="longrope"):
        RopeScaling.of({"rope_parameters": {"rope_type": "longrope"}}, 32)
    with pytest.raises(StageError, match="partial_rotary_factor"):
        RopeScaling.of({"partial_rotary_factor": 0.5}, 32)


def test_an_architecture_that_cannot_be_converted_is_refused(tmp_path):
    write_model(tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(StageError, match="GPT2LMHeadModel has no gguf conversion"):
        write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f16")
