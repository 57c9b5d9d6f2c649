"""Models of transformers, from a folder with config.json and safetensors weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from compress.data import Feeds
from compress.errors import ModelError, blame
from compress.source.examples import Examples
from compress.source.exporting import quiet
from compress.source.torch_module import from_torch, parameters

try:
    import transformers
except ImportError as error:  # an extra: not everybody reads such folders
    raise ModelError(
        "Hugging Face folders need the 'hf' extra: pip install 'compress-toolkit[hf]'"
    ) from error

TOKEN_INPUTS = ("input_ids", "attention_mask")
"""Inputs of a language model that are made up when it is exported."""


def read_folder(folder: Path, config: Mapping[str, Any], examples: Examples, *, trust: bool) -> ir.Model:
    """Export the model of a Hugging Face folder; only its first output (hidden state or logits) is kept.

    Args:
        folder: where config.json and the weights are.
        config: the settings in config.json.
        examples: inputs to export with; without any, a model of tokens gets a short sequence.
        trust: whether code in the folder may run.

    Raises:
        ModelError: transformers cannot load the model, or torch cannot export it.
    """
    architecture = (config.get("architectures") or ["AutoModel"])[0]
    kind = getattr(transformers, architecture, transformers.AutoModel)
    transformers.utils.logging.disable_progress_bar()
    with quiet(), blame(f"{folder}: transformers cannot load it", ModelError):
        module = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust,
            attn_implementation="eager",
            dtype=torch.float32,
        ).eval()
    module.config.use_cache = False
    model = from_torch(module, examples or Examples(_tokens(module)))
    first = model.graph.outputs[0]
    del model.graph.outputs[1:]
    first.name = "logits" if "For" in architecture else "last_hidden_state"
    return RemoveUnusedNodesPass()(model).model


def _tokens(module: torch.nn.Module) -> Feeds:
    names = [name for name in TOKEN_INPUTS if name in parameters(module)]
    if "input_ids" not in names:
        raise ModelError(
            f"{type(module).__name__}: its inputs are not tokens; give calibration data to export it with"
        )
    table = next(each for each in module.modules() if isinstance(each, torch.nn.Embedding))
    ids = np.arange(32).reshape(2, 16) % table.num_embeddings
    return {name: ids if name == "input_ids" else np.ones_like(ids) for name in names}
