"""Pruning by group: each coupling group keeps a share of its channels of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from compress.changes import Change
from compress.errors import PassError, did_you_mean
from compress.model import Model
from compress.numerics.importance import Scores
from compress.prune.channels import NONE_LEFT, left, most_important, number_kept, remove, shapes_of_data
from compress.prune.coupling import Coupling, Group
from compress.prune.saliency import Importance, importance


class Channels:
    """The channels of one model, which may be pruned by many choices of shares.

    Groups are traced, and the importance of their channels is measured, once, on the model as it was given.

    Args:
        model: a float model; it is not changed.
        kind: how importance is told; see `compress.prune.saliency.importance`.
        repairs: whether layers that read fewer channels are refitted on calibration data.
    """

    def __init__(self, model: Model, kind: Importance = "auto", *, repairs: bool = True) -> None:
        self._model = model.copy()
        self._kind: Importance = kind
        self._repairs = repairs

    @cached_property
    def groups(self) -> dict[str, Group]:
        """All coupling groups by name: that of the first layer that makes the channels.

        Where several groups have it, their kind stands behind it, ``query (heads)``, and a number where that
        is not enough. A group with an `obstacle` keeps all its channels.

        Raises:
            ModelError: the shapes of the graph cannot be inferred.
        """
        return named(self.coupling.groups)

    def counts(self, shares: Mapping[str, float]) -> dict[str, int]:
        """Return how many channels groups keep, rounded up, in the order of the groups.

        Args:
            shares: share of its channels that a group keeps, above 0 and up to 1, by name.

        Raises:
            ModelError: the shapes of the graph cannot be inferred.
            PassError: a group does not exist, or may lose no channels.
        """
        for name in shares:
            if name not in self.groups:
                near = did_you_mean(name, self.groups)
                raise PassError(f"channels: no coupling group is called {name!r}{near}")
            if self.groups[name].obstacle and shares[name] < 1:
                raise PassError(f"channels: {name!r} keeps its channels: {self.groups[name].obstacle}")
        return {
            name: number_kept(group.size, 1 - shares[name])
            for name, group in self.groups.items()
            if shares.get(name, 1) < 1
        }

    def pruned(self, counts: Mapping[str, int]) -> tuple[Model, list[Change]]:
        """Return a copy of the model in which groups keep that many channels, and what was done.

        Raises:
            DataError: there are no calibration data for importance or repair.
            ModelError: torch cannot run the graph for the importance.
            PassError: the pruned graph does not run, or cannot be tried.
        """
        model, changes = self._model.copy(), list[Change]()
        kept = {self.groups[name]: count for name, count in counts.items()}
        smaller = {group: count for group, count in kept.items() if count < group.size}
        if smaller:
            masks = {group: most_important(self._scores[group], count) for group, count in smaller.items()}
            changes += remove(model, self.coupling, masks, self._repairs)
        return model, changes + [
            change for group in kept if group not in smaller for change in left(group, NONE_LEFT)
        ]

    @cached_property
    def coupling(self) -> Coupling:
        """The coupling groups of the model.

        Raises:
            ModelError: the shapes of the graph cannot be inferred.
        """
        return Coupling(self._model.ir, shapes_of_data(self._model))

    @cached_property
    def _scores(self) -> dict[Group, Scores]:
        """Importance of each channel of every group that may lose some, whichever a choice names."""
        free = [group for group in self.groups.values() if not group.obstacle]
        _, found = importance(self._kind, self._model, free, seed=0)
        return dict(zip(free, found, strict=True))


def named(groups: Sequence[Group]) -> dict[str, Group]:
    """Return groups by names of their own; see `Channels.groups`."""
    first = Counter(group.name for group in groups)
    alike: Counter[str] = Counter()
    found = {}
    for group in groups:
        name = group.name if first[group.name] == 1 else f"{group.name} ({group.kind})"
        alike[name] += 1
        found[name if alike[name] == 1 else f"{group.name} ({group.kind} {alike[name]})"] = group
    return found
