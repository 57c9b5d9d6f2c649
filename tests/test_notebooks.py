"""Every notebook runs from top to bottom, and the one that was built beside it has the same cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.py"))
PLOT = "application/vnd.plotly.v1+json"


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def plots(notebook: Any) -> list[Any]:
    return [output.data[PLOT] for output in outputs(notebook) if PLOT in output.get("data", ())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws_what_its_built_copy_shows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = jupytext.read(path)
    built = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert [cell.source for cell in built.cells] == [cell.source for cell in notebook.cells]
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    titles = [plot["layout"]["title"]["text"] for plot in plots(notebook)]
    assert titles == [plot["layout"]["title"]["text"] for plot in plots(built)]
    assert len(titles) > 2
    assert not [output for output in outputs(built) if output.output_type == "error"]
