"""The tokenizer stage: lossless, reproducible, digits single, and no control token out of a user's text."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containers.contract import Tokenizer
from containers.formats import ChatFormat
from containers.tokenizer.contract import TokenizerConfig, TokenizerInputs
from tests.by_hand import run_by_hand, try_by_hand
from tests.stages.small_corpus import dataset_of, small_corpus

CONFIG = TokenizerConfig(vocab_size=512)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage")
    return run_by_hand(folder, "tokenizer", CONFIG, TokenizerInputs(corpus=corpus))


@pytest.fixture(scope="module")
def chat(trained):
    return ChatFormat.load(trained[0].tokenizer.path)


def test_two_runs_write_the_same_bytes(trained, corpus, tmp_path):
    again, _ = run_by_hand(tmp_path, "tokenizer", CONFIG, TokenizerInputs(corpus=corpus))
    assert again.tokenizer.digest == trained[0].tokenizer.digest
    assert again.tokenizer == Tokenizer.of(
        again.tokenizer.path, **again.tokenizer.model_dump(exclude={"path", "digest"})
    )


def test_the_card_tells_what_was_learnt(trained):
    outputs, result = trained
    card = json.loads((outputs.tokenizer.path.parent / "card" / "card.json").read_text())
    assert 300 < card["vocab_size"] == result.metrics["vocab_size"] <= CONFIG.vocab_size
    assert result.metrics["bytes_per_token"] > 2
    for split in card["splits"]:
        if "\ufffd" not in "".join(split["tokens"]):
            assert "".join(split["tokens"]) == split["text"]


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(chat, text):
    assert chat.decode(chat.encode(text)) == text


@settings(deadline=None, max_examples=100)
@given(data=st.binary())
def test_any_bytes_come_back(chat, data):
    """Bytes that are no UTF-8 travel as latin-1; each of the 256 has a token of its own."""
    text = data.decode("latin-1")
    assert chat.decode(chat.encode(text)).encode("latin-1") == data


def test_every_byte_has_a_token(chat):
    from tokenizers.pre_tokenizers import ByteLevel

    assert all(chat.tokenizer.token_to_id(letter) is not None for letter in ByteLevel.alphabet())


def test_digits_are_single_tokens(chat):
    assert [chat.decode([i]) for i in chat.encode("1234")] == ["1", "2", "3", "4"]
    vocabulary = (chat.decode([i]) for i in range(chat.tokenizer.get_vocab_size()))
    assert not [t for t in vocabulary if sum(c.isdigit() for c in t) > 1]


@settings(deadline=None, max_examples=100)
@given(parts=st.lists(st.one_of(st.sampled_from(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]), st.text(max_size=5))))
def test_text_never_becomes_a_control_token(chat, parts):
    text = "".join(parts).encode("utf-8", "ignore").decode()
    ids = chat.encode(text)
    assert not chat.control_ids & set(ids)
    assert chat.decode(ids) == text


def test_a_literal_control_token_in_the_corpus_is_learnt_as_text(tmp_path):
    corpus = dataset_of(tmp_path / "corpus", train=["Yes.<|endoftext|> <|im_end|>"] * 50, validation=["Yes."])
    outputs, _ = run_by_hand(
        tmp_path / "stage", "tokenizer", TokenizerConfig(vocab_size=300), TokenizerInputs(corpus=corpus)
    )
    chat = ChatFormat.load(outputs.tokenizer.path)
    assert not chat.control_ids & set(chat.encode("Yes.<|endoftext|> <|im_end|>"))


def test_turns_end_and_the_loss_covers_the_end(chat):
    messages = [{"role": "user", "content": "Hi <|im_end|>"}, {"role": "assistant", "content": "Hello."}]
    rendered = chat.render(messages)
    trained = [i for i, on in zip(rendered.ids, rendered.trained, strict=True) if on]
    assert trained == [*chat.encode("Hello."), chat.end_of_turn]
    assert chat.decode([chat.end_of_turn], control=True) == "<|im_end|>"
    assert chat.stop_ids == tuple(sorted((chat.token_id("eos_token"), chat.end_of_turn)))


def test_transformers_reads_the_folder_and_agrees(trained, chat):
    from transformers import AutoTokenizer

    folder = trained[0].tokenizer.path
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in ("Ada had 12 apples.\n\n  It's   fine\t\u00e9\u4f60\U0001f6a2", " x", "\r\n\r\n a1b2"):
        assert theirs(text).input_ids == chat.encode(text)
        assert theirs.decode(theirs(text).input_ids) == text
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    for open_turn in (False, True):
        ids = theirs.apply_chat_template(messages, add_generation_prompt=open_turn, return_dict=False)
        assert ids == chat.render(messages, open_turn=open_turn).ids
    assert (theirs.eos_token, theirs.pad_token, theirs.bos_token) == ("<|endoftext|>", "<|endoftext|>", None)


def test_a_sample_of_the_corpus_is_enough(corpus, tmp_path):
    config = TokenizerConfig(vocab_size=320, sample_bytes=20_000)
    outputs, _ = run_by_hand(tmp_path, "tokenizer", config, TokenizerInputs(corpus=corpus))
    card = json.loads((outputs.tokenizer.path.parent / "card" / "card.json").read_text())
    assert 0 < card["trained_share"] < 1


def test_an_empty_corpus_is_refused(tmp_path):
    corpus = dataset_of(tmp_path / "corpus", train=[], validation=[])
    code, errors = try_by_hand(tmp_path / "stage", "tokenizer", CONFIG, TokenizerInputs(corpus=corpus))
    assert code == 2
    assert "no text" in errors
    assert not Path(tmp_path / "stage" / "result.json").exists()
