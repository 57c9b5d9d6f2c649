"""Traces as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compress.errors import InputError
from compress.governor import read_trace


def _written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_rows_are_requests(tmp_path: Path) -> None:
    trace = read_trace(_written(tmp_path, "time\n3.5\n4\n\n90\n"))
    assert trace.requests.tolist() == [3.5, 4.0, 90.0]
    assert (trace.start, trace.end) == (3.5, 90.0)


def test_counts_are_spread_until_the_next_row(tmp_path: Path) -> None:
    trace = read_trace(
        _written(tmp_path, "time,requests,harvest_watts\n6:00,2,0\n07:00,0,2.5\n08:00:00,4,1\n")
    )
    assert trace.requests.tolist() == [21600, 23400, 28800, 29700, 30600, 31500]
    assert trace.end == 9 * 3600
    assert trace.harvested(np.array([21600.0, 25200, 27000, 28800, 32400])).tolist() == [
        0,
        0,
        4500,
        9000,
        12600,
    ]


def test_dates_go_on_after_midnight(tmp_path: Path) -> None:
    trace = read_trace(_written(tmp_path, "time\n2026-06-21T23:00\n2026-06-22T01:00:30\n"))
    assert trace.requests.tolist() == [82800, 82800 + 7230]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "there is no column 'time'; the file is empty"),
        ("when,requests\n1,2\n", "there is no column 'time'; its first line is 'when,requests'"),
        ("time,harvest\n1,2\n", "unknown column 'harvest'; did you mean 'harvest_watts'"),
        ("time\n", "the trace has no rows"),
        ("time,requests\n1,0\n", "the trace has no requests"),
        ("time\n5\n4\n", "trace.csv:3: time runs backwards, from 5 s to 4 s"),
        ("time\nnan\n", "trace.csv:2: time is nan, not a finite number"),
        ("time\nnoon\n", "trace.csv:2: time is 'noon'; write seconds, a time of day"),
        ("time\n25:00\n", "time is '25:00'"),
        ("time,requests\n1,\n", "trace.csv:2: requests is ''"),
        ("time,requests\n1,-2\n", "requests is -2, below zero"),
        ("time,requests\n1,2.5\n", "2.5 requests are no whole number"),
        ("time,harvest_watts\n1,inf\n", "harvest_watts is inf, not a finite number"),
        ("time,requests\n1\n", "trace.csv:2: 1 cells where the first line names 2 columns"),
        ("time,requests\n1,99999999999\n", "more than a trace may have"),
    ],
)
def test_what_is_wrong_with_a_trace_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(_written(tmp_path, text))
    assert complaint in str(caught.value)


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "model.onnx").write_bytes(b"\x80\xff\x00")
    with pytest.raises(InputError, match="not a CSV file"):
        read_trace(tmp_path / "model.onnx")
