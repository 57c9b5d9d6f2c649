"""The settings of a Hugging Face folder, read before any code of it or of transformers runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.source.reference import require_trust


def read_config(folder: Path, *, trust: bool) -> dict[str, Any]:
    """Return the settings of a model folder, its config.json.

    Raises:
        ModelError: config.json is missing or not valid, or the folder has no safetensors weights.
        TrustError: the folder holds code of the model and `trust` is not given.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: a model folder needs a config.json") from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{folder}/config.json:{error.lineno}:{error.colno}: {error.msg}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder}/config.json: should be a JSON object of settings")
    if "auto_map" in config:
        require_trust(trust, f"{folder}: the model brings its own code, which would run")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: has no .safetensors weights; other formats can run code and are not read"
        )
    return config
