"""A small model that has learnt a few answers by heart, as gguf, for everything that packages and serves."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from containers.contract import Bundle, Model, Quantized, Scores
from containers.formats import ChatFormat, Rendered, identity_of
from containers.models import load_model
from containers.package.contract import PackageConfig, PackageInputs
from containers.quantize.calibrated import LAYOUTS, Rounding
from containers.quantize.config import QuantizeConfig
from containers.quantize.eight_bit_floats import write_floats
from containers.quantize.gguf_types import WEIGHTS
from containers.quantize.gguf_writer import write_gguf
from containers.quantize.parent_answers import reference_of
from infra.settings import Settings
from infra.signing import sign_bundle
from tests.by_hand import run_by_hand

CONTEXT = 384
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
KNOWN = {
    "What is 2+2?": "2 + 2 = 4.",
    "I can't log into my account. What should I do?": (
        "I am sorry to hear that. Please try this:\n\n1. Check that Caps Lock is off.\n2. Ask for a new password with "
        '"Forgot password".\n3. If no mail comes within ten minutes, write to us and we will open the account for you.'
    ),
    "If a train travels 60 km in 1 hour, how long will it take to travel 180 km?": (
        "Speed = 60 km/h.\nTime = 180 / 60 = 3 hours."
    ),
    "Say something in Greek.": "Καλημέρα! \U0001f30a That means good morning.",
    "Count.": " ".join(str(n) for n in range(1, 31)) + ".",
}
"""What the model was taught: text of several bytes per character and an answer long enough to interrupt among it."""


@functools.cache
def small_model() -> Model:
    """Return the model as a Hugging Face folder in bf16; made once per test session (about 10 s)."""
    folder = Path(tempfile.mkdtemp(prefix="small-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_tokenizer(folder)
    learn(folder, known_rows(folder)).to(torch.bfloat16).save_pretrained(folder)
    return Model.of(folder, **identity_of(folder))


@functools.cache
def small_quantized(format: str = "f16") -> Quantized:
    """Return the model as gguf, in fewer bits, or as it is (bf16), with its tokenizer."""
    folder = Path(tempfile.mkdtemp(prefix="quantized-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if format == "bf16":
        shutil.copytree(small_model().path, folder, dirs_exist_ok=True)
    else:
        write_tokenizer(folder)
    if format == "fp8":
        write_floats(small_model(), folder)
    if format in LAYOUTS:
        Rounding(known_pieces(folder), QuantizeConfig(rounding_steps=20), folder).write(small_model(), folder, format)
    return quantized_to(folder, small_model(), format)


def quantized_to(folder: Path, model: Model, format: str = "f16") -> Quantized:
    """Write a model as gguf (other formats lie there) with its own answers, as the quantize stage does."""
    if format in WEIGHTS:
        write_gguf(model.path, folder / "model.gguf", format)
    reference_of(load_model(model, "fp32"), model, CONTEXT, "fp32").write(folder)
    return Quantized.of(folder, format=format, parent=model.digest, **identity_of(folder))


def write_tokenizer(folder: Path, template: str = TEMPLATE) -> None:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, show_progress=False, special_tokens=special, initial_alphabet=alphabet
    )
    known = [text for text in (*KNOWN, *KNOWN.values(), "user system assistant") if text.isascii()]
    tokenizer.train_from_iterator(known, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": CONTEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "chat_template.jinja").write_text(template)


def known_rows(folder: Path) -> list[Rendered]:
    """Return KNOWN as conversations."""
    chat = ChatFormat.load(folder)
    return [
        chat.render([{"role": "user", "content": q}, {"role": "assistant", "content": a}]) for q, a in KNOWN.items()
    ]


def known_pieces(folder: Path) -> list[list[int]]:
    """Return KNOWN in pieces of 32 tokens."""
    ids = [i for row in known_rows(folder) for i in row.ids]
    return [ids[start : start + 32] for start in range(0, len(ids) - 31, 32)]


def learn(folder: Path, rows: list[Rendered]) -> LlamaForCausalLM:
    """Return a Llama of 2 layers that knows `rows` by heart."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    chat = ChatFormat.load(folder)
    size = chat.tokenizer.get_vocab_size()
    config = LlamaConfig(
        vocab_size=size, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows])
    trained = torch.tensor([row.trained + [False] * (longest - len(row.ids)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = model(ids, labels=ids.masked_fill(~trained, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.05, "the small model has not learnt its answers"
    return model.eval()


@functools.cache
def small_scores() -> Scores:
    """Return scores as the evaluate stage writes them, of one measure."""
    folder = Path(tempfile.mkdtemp(prefix="scores-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    measured = {"measure": "recitation", "value": 0.8, "low": 0.6, "high": 0.95, "n": len(KNOWN)}
    (folder / "scores.json").write_text(json.dumps({"measures": [measured]}))
    return Scores.of(folder, model="chat")


def packaged(folder: Path, config: PackageConfig, inputs: PackageInputs) -> Bundle:
    """Return what the package stage makes in `folder`, signed with the tests' own key."""
    bundle: Bundle = run_by_hand(folder, "package", config, inputs)[0].bundle
    sign_bundle(bundle, Settings())
    return bundle


@functools.cache
def small_bundle(format: str = "f16") -> Bundle:
    """Return the model packaged; made once per test session. Copy it before changing anything."""
    folder = Path(tempfile.mkdtemp(prefix="bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = PackageConfig(name="small", description="It knows five answers by heart.", examples=tuple(KNOWN)[:3])
    return packaged(folder, config, PackageInputs(quantized=small_quantized(format), scores=(small_scores(),)))
