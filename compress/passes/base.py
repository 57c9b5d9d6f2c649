"""What a pass is: a function from model to model that accounts for what it changed in each layer."""

from __future__ import annotations

import fnmatch
import re
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from compress import diagnose, estimator, graph
from compress.changes import Change, Reason
from compress.errors import ModelError, PassError, did_you_mean

if TYPE_CHECKING:
    from compress.model import Model


class Pass(BaseModel, ABC):
    """A function from model to model, with frozen settings.

    Subclass it in a file of its own, name it in the class statement, and list the file in
    `compress.passes`: the recipe schema, ``compress passes NAME``, the documentation and the
    contract tests follow from the one definition::

        class Round(Pass, name="round"):
            '''Round every weight.'''

            digits: int = Field(default=3, ge=0)
            '''Decimal digits that are kept.'''

            def apply(self, model): ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ClassVar[str]
    """How a recipe calls the pass."""
    needs_float: ClassVar[bool] = True
    """Whether the pass must come before every pass that quantizes."""
    quantizes: ClassVar[bool] = False
    """Whether weights are no longer plain float afterwards."""
    needs_quantized: ClassVar[bool] = False
    """Whether the pass corrects a model that an earlier pass quantized."""
    needs_opset: ClassVar[int] = 0
    """The oldest operator set that can say what the pass writes; a graph of an older one is raised first."""
    needs_float32: ClassVar[bool] = False
    """Whether the graph must compute in float32, as integer kernels ask; one that does not is converted."""
    needs_calibration: ClassVar[bool] = False
    """Whether the pass reads calibration data with its default settings."""

    accounts: ClassVar[bool] = True
    """Whether the pass works on weights, and so has a record for each; others work on nodes."""

    compresses: ClassVar[bool] = True
    """Whether the pass exists to make weights fewer or smaller."""

    include: tuple[str, ...] = ("*",)
    """Layers to work on: shell-style patterns over node and weight names."""
    exclude: tuple[str, ...] = ()
    """Layers to leave alone, same patterns; wins over `include`."""

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            REGISTRY[name] = cls

    def __call__(self, model: Model) -> Model:
        """Return a changed copy of `model`; the argument stays as it was.

        Raises:
            PassError: the pass cannot work on this model; the message names pass and layer.
        """
        with estimator.spending.spending(self.name) as spent:
            result = self._applied(model)
        result.making = (*model.making, spent.made)
        return result

    def _applied(self, model: Model) -> Model:
        before = self._prepared(model)
        self._check_patterns(before)
        storage = graph.stored.read_plainly(before.ir)
        if self.needs_float32:
            storage |= graph.stored.compute_in_float32(before.ir)
        result = before.copy()
        changes = self.apply(result)
        if graph.is_same(before.ir, result.ir):
            changes = [_undone(change) for change in changes]
        done = any(change.action for change in changes)
        if self.accounts:
            start, end = (before.ir, result.ir) if done else (model.ir, model.ir)
            changes = [*changes, *graph.left_alone(start, end, changes, self.selects, before.ir)]
        if done:
            graph.stored.store_again(result.ir, storage)
            graph.settle.settle(model.ir, result.ir)
            changes = [*changes, *self._raised(model, result)]
        else:
            result = model.copy()
        changes = changes or [Change("", skipped=Reason.ABSENT)]
        result.changes = (*model.changes, *(replace(change, by=self.name) for change in changes))
        return result

    def _prepared(self, model: Model) -> Model:
        """Return a copy that the pass can work on, still the same model.

        Raises:
            PassError: it would not be the same model.
        """
        try:
            result = model.prepared(self.least_opset())
            if not model.is_prepared or result.opset > model.opset:
                sets = f"raising the operator set from {model.opset} to {result.opset}"
                what = sets if result.opset > model.opset else "preparing the graph"
                diagnose.faithful.check(model.ir, result.ir, model.calibration, what)
        except ModelError as error:
            raise PassError(str(error)) from error
        return result

    def _raised(self, model: Model, result: Model) -> list[Change]:
        if result.opset == model.opset:
            return []
        action = f"raised from {model.opset} to {result.opset}, which the pass needs"
        return [Change("operator set", action)]

    def least_opset(self) -> int:
        """Return the operator set that these settings need."""
        return self.needs_opset

    def leaves_float(self) -> bool:
        """Tell whether, with these settings, all weights are plain float afterwards."""
        return not self.quantizes

    @abstractmethod
    def apply(self, model: Model) -> list[Change]:
        """Change `model` in place and return one `Change` per layer looked at."""

    def selects(self, *names: str | None) -> bool:
        """Tell whether `include` and `exclude` choose a layer known by any of `names`."""
        known = [name for name in names if name] or [""]  # "*" chooses what has no name
        chosen = any(fnmatch.fnmatchcase(name, pattern) for name in known for pattern in self.include)
        return chosen and not any(
            fnmatch.fnmatchcase(name, pattern) for name in known for pattern in self.exclude
        )

    def _check_patterns(self, model: Model) -> None:
        """Refuse patterns that no node and no weight has, now or before the first pass."""
        known = graph.names(model.ir) | graph.names(model.original.ir)
        parts = {part for name in known for part in re.split(r"[./:]", name)}
        for setting in ("include", "exclude"):
            for pattern in getattr(self, setting):
                if pattern != "*" and not any(fnmatch.fnmatchcase(name, pattern) for name in known):
                    near = did_you_mean(pattern.strip("*"), known | parts)
                    raise PassError(f"{setting}: no layer or weight is called {pattern!r}{near}")

    def own(self) -> dict[str, Any]:
        """Return all settings but `include` and `exclude`, as keyword arguments of the call into a room."""
        names = type(self).model_fields.keys() - Pass.model_fields.keys()
        return {name: getattr(self, name) for name in names}

    def settings(self) -> dict[str, Any]:
        """Settings that differ from their defaults, as a recipe writes them."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}: {value}" for key, value in self.settings().items())
        return f"{self.name}: {{{inside}}}" if inside else self.name

    __str__ = __repr__


def _undone(change: Change) -> Change:
    """Return a change of a pass that changed nothing after all."""
    if not change.action:
        return change
    return Change(change.layer, skipped=Reason.NO_GAIN.because(f"{change.action} already"))


REGISTRY: dict[str, type[Pass]] = {}
"""Every pass by name; filled as pass classes are defined."""


def get(name: str) -> type[Pass]:
    """Return the pass class called `name`.

    Raises:
        PassError: no pass has that name.
    """
    if name not in REGISTRY:
        raise PassError(f"unknown pass {name!r}{did_you_mean(name, REGISTRY)}")
    return REGISTRY[name]
