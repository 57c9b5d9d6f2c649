"""The estimator for other tools: without torch, in little time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx_ir as ir

MODEL = """<ir_version: 10, opset_import: ["": 21]>
g (float[n, 8] x, float[8, 4] w) => (float[n, 4] y) { y = MatMul(x, w) }"""
PROGRAM = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchao", "transformers"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocked())
from compress import estimate
for hardware in ("eyeriss-v1", "h200", "cpu"):
    total = estimate(sys.argv[1], hardware, shapes={"x": (3, 8)}).total
    assert total.macs == 3 * 8 * 4, total
    assert total.energy_joules > 0
"""


def test_it_works_where_torch_is_not_installed(tmp_path: Path) -> None:
    ir.save(ir.from_onnx_text(MODEL), tmp_path / "m.onnx")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "m.onnx")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
