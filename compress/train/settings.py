"""The settings of a training, which every pass that trains has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Training(BaseModel):
    """Settings of a training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: int = Field(default=10, ge=1)
    """Number of passes over the calibration data."""
    batch_size: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Samples of a training step, drawn anew from all batches in each epoch; 0 takes the batches as they are.
    auto draws 32 where the model takes any number of rows and each row's result depends on that row only."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Learning rate at its peak: it rises linearly during the warm-up and then falls to zero as a cosine.
    auto is 0.001, and 0.0001 for networks with attention."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The optimizer; sgd has a Nesterov momentum of 0.9."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of matrices and kernels; biases and normalizations have none."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Fraction of all steps over which the learning rate rises."""
    distill: bool | Literal["auto", "mse", "kl"] = "auto"
    """Whether and how the original is imitated: mse, or true, compares all outputs; kl compares the class
    probabilities of the first output. auto is mse if there are no labels or if earlier passes changed the
    model, and otherwise no distillation."""
    distill_share: float = Field(default=0.5, gt=0, le=1)
    """Share of distillation in the loss where there are labels; 1 ignores the labels."""
    temperature: float = Field(default=2.0, gt=0)
    """Temperature that softens the class probabilities that kl compares."""
    hidden: tuple[str, ...] = ()
    """Names of values inside the graph that are trained to match the original's; needs distill."""
    keep_zeros: bool = True
    """Whether zeros in matrices and kernels stay zero, so that sparsity is kept."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the data that is not trained on; the weights that do best on it are kept."""
    patience: int = Field(default=0, ge=0)
    """Epochs without improvement on held-out data after which training stops; 0 never stops early."""
    stop_on: Literal["loss", "accuracy"] = "loss"
    """What must improve on the held-out data."""
    mixed_precision: bool = False
    """Whether matrix products run in bfloat16, where the device supports it."""
    seed: int = Field(default=0, ge=0)
    """Seed of the order of the data and of dropout."""
    checkpoint: str = ""
    """A file that is written after each epoch; an interrupted training continues from it."""
    processes: int = Field(default=1, ge=1)
    """Processes that share the batches of each epoch, each on its own GPU where there are GPUs. A step
    averages the gradients of all. For several machines, run under torchrun a script that initializes the
    process group and applies the pass."""

    @classmethod
    def of(cls, settings: Training) -> Training:
        """Return the settings of a training among those of a pass."""
        return cls(**{name: getattr(settings, name) for name in cls.model_fields})


class ResolvedTraining(Training):
    """The settings of a training in which nothing is left to ``auto``."""

    batch_size: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
