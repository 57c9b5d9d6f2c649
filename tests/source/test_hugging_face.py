"""A small folder of transformers, read as a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers

import compress
from compress.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_a_folder_is_exported_with_its_first_output_alone(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    module = transformers.BertForSequenceClassification(config).eval()
    module.save_pretrained(tmp_path)
    model = compress.load(tmp_path)
    assert [value.name for value in model.graph.outputs] == ["logits"]
    ids = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    import torch

    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(array) for name, array in feeds.items()}).logits.numpy()
    np.testing.assert_allclose(model.run(feeds)[0], expected, rtol=1e-4, atol=1e-5)
    assert "classifier.weight" in model.graph.initializers


def test_a_model_without_tokens_needs_examples(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="ViTModel: its inputs are not tokens; give calibration data"):
        compress.load(tmp_path)
