"""From one dial to a Llama shape, and the model that training starts from."""

import math
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from containers.contract import Model, StageError, Tokenizer
from containers.formats import ChatFormat
from containers.model_folder import check_model, context_in
from containers.models import load_model
from containers.pretrain.config import PretrainConfig, ShapeConfig

WIDTH_PER_LAYER = 48


def shape_of(depth: int) -> ShapeConfig:
    """Return the shape of a depth: 48 wide per layer, heads of 64 (32 below 512), grouped keys, ffn 8/3 of the width.

    Widths are multiples of 64 so that every weight row divides into the 32-blocks of q8_0 and q4_0.
    """
    width = max(64, 64 * round(WIDTH_PER_LAYER * depth / 64))
    heads = width // (64 if width >= 512 else 32)
    kv_heads = max(divisor for divisor in range(1, heads // 2 + 1) if heads % divisor == 0)
    return ShapeConfig(width=width, layers=depth, heads=heads, kv_heads=kv_heads, ffn=64 * math.ceil(width / 24))


def build(config: PretrainConfig, chat: ChatFormat) -> PreTrainedModel:
    """Return a Llama model with random weights drawn from the seed; raises StageError on an impossible shape."""
    shape = config.shape or shape_of(config.depth)
    if shape.width % shape.heads or shape.heads % shape.kv_heads or (shape.width // shape.heads) % 2:
        raise StageError(
            f"pretrain.shape: width {shape.width}, heads {shape.heads}, kv_heads {shape.kv_heads} do not divide: "
            "heads must divide width into an even head size, kv_heads must divide heads"
        )
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(llama_config(config, shape, chat))
    # Branches that add to the residual stream start smaller, as in GPT-2 (Radford et al. 2019, section 2.3).
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight /= math.sqrt(2 * shape.layers)
            layer.mlp.down_proj.weight /= math.sqrt(2 * shape.layers)
    return model


def llama_config(config: PretrainConfig, shape: ShapeConfig, chat: ChatFormat) -> LlamaConfig:
    """Return the Hugging Face config of a shape, within what llama.cpp serves as `llama`."""
    return LlamaConfig(
        vocab_size=chat.tokenizer.get_vocab_size(),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=config.sequence_length,
        tie_word_embeddings=config.tie_embeddings,
        rms_norm_eps=1e-5,
        bos_token_id=None,
        eos_token_id=chat.token_id("eos_token"),
        # No pad_token_id: it would freeze the embedding of <|endoftext|>, which pads too.
        pad_token_id=None,
    )


def load(start: Model, tokenizer: Tokenizer, config: PretrainConfig) -> PreTrainedModel:
    """Return the checkpoint to continue from in fp32; raises StageError where it does not fit the run."""
    if start.tokenizer != tokenizer.tokenizer:
        raise StageError(
            "the checkpoint was trained with another tokenizer: continue with the tokenizer beside its weights"
        )
    # Rows are attended to whole: a window would be ignored here and heeded by whoever reads the model later.
    context = context_in(check_model(start))
    if config.sequence_length > context:
        raise StageError(
            f"pretrain.sequence_length {config.sequence_length} exceeds the checkpoint's context of {context}: "
            f"set it to {context} or less"
        )
    return load_model(start, "fp32")


def described(model: PreTrainedModel) -> dict[str, Any]:
    """Return the card's line on the shape: the derived numbers and the count of weights."""
    shape = model.config
    return {
        "architecture": shape.model_type,
        "width": shape.hidden_size,
        "layers": shape.num_hidden_layers,
        "heads": shape.num_attention_heads,
        "kv_heads": shape.num_key_value_heads,
        "ffn": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
        "context": shape.max_position_embeddings,
        "tied_embeddings": shape.tie_word_embeddings,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
