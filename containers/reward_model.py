"""A reward model: a causal language model whose head gives one number, how good the last answer of a chat is.

On disk it is a plain Hugging Face sequence classifier. The score is read at the token that ends the last answer: text
after it (the line break of a template) belongs to nobody's answer and is not given to the model.
"""

import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig
from transformers.modeling_outputs import SequenceClassifierOutputWithPast
from transformers.utils.logging import set_verbosity_error

from containers.contract import Model, RewardModel
from containers.formats import ChatFormat, identity_of
from containers.model_folder import check_identity, check_model, check_weights
from containers.models import DTYPES, copy_tokenizer, keep_four_bits, stored_dtype
from containers.pairs.packing import Row
from containers.policy import packed


def load_reward_model(
    source: Model | RewardModel,
    precision: str,
    quantized: BitsAndBytesConfig | None = None,
    device: torch.device | str = "cpu",
) -> Any:
    """Return the classifier in eval mode, its head in fp32; a Model gets a new head, drawn from torch's seed.

    It answers `row=` (`answer_row`) and attends within the answers of a packed row. Raises StageError as `check_model`
    does.
    """
    if isinstance(source, Model):
        check_model(source)
    else:
        check_weights(source.path)
        check_identity(source)
    set_verbosity_error()  # it would tell of the head that a Model does not have yet
    model = AutoModelForSequenceClassification.from_pretrained(
        source.path,
        num_labels=1,
        dtype=DTYPES[precision],
        quantization_config=quantized,
        device_map={"": device} if quantized else None,
        use_safetensors=True,
        local_files_only=True,
    )
    model = keep_four_bits(model) if quantized else model.to(device)
    model.score.float()
    answer_row(packed(model))
    return model.eval()


def answer_row(model: Any) -> None:
    """Make a sequence classifier answer `row=` with the scores (K, 1), fp32, at the places of a packed row."""
    plain = type(model).forward

    def forward(self: Any, *args: Any, row: Row | None = None, **given: Any) -> Any:
        if row is None:
            return plain(self, *args, **given)
        within = {name: value for name, value in row.items() if name != "logits_to_keep"}
        states = self.model(**within, use_cache=False).last_hidden_state[0].index_select(0, row["logits_to_keep"])
        with torch.autocast(states.device.type, enabled=False):  # bf16 scores would differ in steps of 0.8%
            return SequenceClassifierOutputWithPast(logits=self.score(states.float()))

    model.forward = types.MethodType(forward, model)


def scores(model: Any, row: Row) -> Tensor:
    """Return the score of each answer of a packed row: (K), fp32, the chosen answers first."""
    found: Tensor = model(row=row).logits[:, 0]
    return found


def save_reward_model(model: Any, folder: Path, beside: Path) -> RewardModel:
    """Write the classifier to `folder` in the precision that `beside` stores its weights in, with its tokenizer."""
    model.set_attn_implementation("sdpa")
    stored = stored_dtype(beside)
    model.to(stored)
    model.config.dtype = stored
    model.config._name_or_path = ""
    model.config.pad_token_id = padding_of(ChatFormat.load(beside))
    model.save_pretrained(folder)
    copy_tokenizer(beside, folder)
    return RewardModel.of(folder, **identity_of(folder))


def padding_of(chat: ChatFormat) -> int | None:
    """Return a padding id that does not end a turn.

    transformers reads the score at the last token that is not padding, which must be the one that ends the answer.
    """
    named = (chat.token_id(name) for name in ("pad_token", "eos_token", "unk_token", "bos_token"))
    others = (*named, *sorted(chat.control_ids))
    return next((i for i in others if i is not None and i != chat.end_of_turn), None)
