"""ZigZag's side of ``mapper.py``: runs in the peer's environment, reads layers as JSON, prints JSON."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from zigzag.api import get_hardware_performance_zigzag
from zigzag.mapping.data_movement import DataDirection

HERE = Path(__file__).parent
WORD_BITS = 64
"""Width of DRAM's port in ``zigzag_buffer.yaml``."""
MAPPING = """
- name: default
  spatial_mapping: {D1: ["K, 32"], D2: ["C, 32"]}
  memory_operand_links: {O: O, W: I2, I: I1}
"""


def workload(m: int, c: int, out: int, kernel: int, stride: int) -> str:
    """Return a convolution as ZigZag's own YAML: 8-bit operands, 16-bit partial sums."""
    inputs, padding = (out * stride, kernel // 2) if kernel > 1 else ((out - 1) * stride + 1, 0)
    return f"""
- id: 0
  name: conv
  operator_type: Conv
  equation: O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]
  dimension_relations: [ix={stride}*ox+1*fx, iy={stride}*oy+1*fy]
  loop_dims: [B, K, C, OY, OX, FY, FX]
  loop_sizes: [1, {m}, {c}, {out}, {out}, {kernel}, {kernel}]
  pr_loop_dims: [IX, IY]
  pr_loop_sizes: [{inputs}, {inputs}]
  padding: [[{padding}, {padding}], [{padding}, {padding}]]
  operand_precision: {{W: 8, I: 8, O: 16, O_final: 8}}
  operand_source: {{I: 0, W: 0}}
"""


def run(layer: list[int], folder: Path) -> dict[str, float]:
    """Return DRAM bytes and seconds of one layer."""
    for name, text in (("workload.yaml", workload(*layer)), ("mapping.yaml", MAPPING)):
        (folder / name).write_text(text)
    start = time.perf_counter()
    _, _, found = get_hardware_performance_zigzag(
        str(folder / "workload.yaml"),
        str(HERE / "zigzag_buffer.yaml"),
        str(folder / "mapping.yaml"),
        opt="energy",
        dump_folder=str(folder),
        loma_show_progress_bar=False,
    )
    seconds = time.perf_counter() - start
    logging.disable()
    best = found[0][1][0][0]
    ways = (DataDirection.RD_OUT_TO_LOW, DataDirection.WR_IN_BY_LOW)
    words = sum(levels[-1].get(way) for levels in best.memory_word_access.values() for way in ways)
    return {"bytes": words * WORD_BITS / 8, "seconds": seconds}


with tempfile.TemporaryDirectory() as scratch:
    json.dump([run(layer, Path(scratch)) for layer in json.load(sys.stdin)], sys.stdout)
