"""The settings of a training, which every pass that trains has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Training(BaseModel):
    """How to train: on what, for how long, and towards which goal."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: int = Field(default=10, ge=1)
    """How often the calibration data are gone through."""
    batch_size: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Samples of a training step, drawn anew from all batches each epoch; 0 takes batches as they come; auto
    draws 32 where the model takes any number of rows, and no row knows of the others."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """The highest; it rises to it during the warm-up and falls to zero as a cosine; auto is 0.001, and 0.0001
    for networks with attention."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """sgd has a Nesterov momentum of 0.9."""
    weight_decay: float = Field(default=0.01, ge=0)
    """On matrices and kernels only."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Part of all steps over which the learning rate rises."""
    distill: bool | Literal["auto", "mse", "kl"] = "auto"
    """Imitate the original: mse compares all outputs and is what true means, kl the classes of the first;
    auto does so if there are no labels, or if earlier passes changed the model."""
    distill_share: float = Field(default=0.5, gt=0, le=1)
    """Part of the loss that distillation has where there are labels; 1 ignores the labels."""
    temperature: float = Field(default=2.0, gt=0)
    """Softens the classes that kl compares."""
    hidden: tuple[str, ...] = ()
    """Values inside the graph that are to stay like the original's, by name; needs distill."""
    keep_zeros: bool = True
    """Whether zeros in matrices and kernels stay zero, so that sparsity survives."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Part of the data not trained on; the weights that do best on it are kept."""
    patience: int = Field(default=0, ge=0)
    """Epochs without improvement on held-out data after which training stops; 0 never stops early."""
    stop_on: Literal["loss", "accuracy"] = "loss"
    """What must improve on the held-out data."""
    mixed_precision: bool = False
    """Matrix products in bfloat16, where the device has it."""
    seed: int = Field(default=0, ge=0)
    """Order of the data and dropout derive from it."""
    checkpoint: str = ""
    """A file written after each epoch; a training that was interrupted goes on from it."""
    processes: int = Field(default=1, ge=1)
    """Processes that share each epoch, on a GPU each where there are some; a step sees the batches of all.
    For several machines, start a script by torchrun that makes the process group and applies the pass."""

    @classmethod
    def of(cls, settings: Training) -> Training:
        """Return the settings of a training among those of a pass."""
        return cls(**{name: getattr(settings, name) for name in cls.model_fields})


class ResolvedTraining(Training):
    """The settings of a training in which nothing is left to ``auto``."""

    batch_size: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
