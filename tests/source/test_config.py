"""Model folders of Hugging Face that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import compress
from compress.errors import ModelError, TrustError


@pytest.mark.parametrize(
    ("config", "weights", "kind", "message"),
    [
        (None, False, ModelError, "needs a config.json"),
        ("{", False, ModelError, "config.json:1:2: Expecting property name"),
        ("[]", True, ModelError, "config.json: should be a JSON object"),
        ({"model_type": "bert"}, False, ModelError, "has no .safetensors weights"),
        ({"model_type": "bert", "auto_map": {}}, True, TrustError, "brings its own code"),
        ({"model_type": "nonsense"}, True, ModelError, "transformers cannot load it.*nonsense"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, True, ModelError, "header too small"),
    ],
)
def test_folders_that_hold_no_model(tmp_path, config, weights, kind, message):
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        Path(tmp_path, "config.json").write_text(text)
    if weights:
        Path(tmp_path, "model.safetensors").write_bytes(b"xx")
    with pytest.raises(kind, match=message):
        compress.load(tmp_path)
