"""Changes are summed by pass, in the order of work."""

from __future__ import annotations

from compress.changes import Change, Effect, by_pass


def test_changes_are_summed_by_pass() -> None:
    def change(layer: str, by: str, error: float | None = None, skipped: str = "") -> Change:
        action = "" if skipped else "done"
        return Change(
            layer=layer,
            action=action,
            bytes_before=8 if action else 0,
            bytes_after=2 if action else 0,
            error=error,
            skipped=skipped,
            by=by,
        )

    first, second = by_pass(
        [
            change("a", "one", 0.1),
            change("b", "one", 0.3),
            change("c", "one", skipped="too small"),
            change("d", "one", skipped="not a weight"),
            change("e", "one", skipped="not a weight"),
            change("a", "two"),
        ]
    )
    assert (first.name, len(first.changed), first.bytes_before, first.bytes_after) == ("one", 2, 16, 4)
    assert first.worst is not None and first.worst.layer == "b"
    assert first.skipped == (("not a weight", ("d", "e")), ("too small", ("c",)))
    assert (second.name, second.worst) == ("two", None)


def test_effects_are_told_in_words() -> None:
    whole = Effect(True, snr_db=31.4, time_in_floats=0.024, time_in_integers=0.012)
    assert str(whole) == "integers: 31 dB at the outputs, 1.2% of the time instead of 2.4%"
    left = Effect(False, snr_db=12.0, why="too noisy")
    assert str(left) == "left in float: too noisy; integers: 12 dB at the outputs"
    assert [str(Effect(True)), str(Effect(False))] == ["integers", "left in float"]
