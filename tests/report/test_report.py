"""The room: what importing it loads."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_report_loads_no_plotly() -> None:
    code = "import sys, compress.report; print({'plotly', 'jinja2', 'rich', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
