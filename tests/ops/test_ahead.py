"""Every kernel is compiled for sm_80 and sm_90; what it takes of a multiprocessor stays within its limits."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("triton")  # on Linux a dependency of the tests
assert os.environ.get("TRITON_INTERPRET") != "1", "the interpreter does not compile: unset TRITON_INTERPRET"

from ahead import SHARED_LIMIT, Report, compile_for

from sketchynet.ops.kernels import (
    hard_negatives,
    match_rank,
    nearest,
    pairwise_distance,
    relational_huber,
    relational_tiles,
)

F, H, L, I, B8, F64 = "*fp32", "*bf16", "*i64", "*i32", "*i8", "*fp64"

KERNELS: dict[str, tuple[Any, Any, dict[str, str], dict[str, Any]]] = {
    # name: kernel, its tuned form or its block sizes, types that are not i32, constants
    "distance": (
        pairwise_distance.distance_kernel,
        pairwise_distance.distance_tuned,
        {"x": F, "y": F, "x_norms": F, "y_norms": F, "out": F, "flags": B8},
        {"NEAR_SHARE": 0.015625, "SQUARED": False, "EVEN": True, "PRECISION": "tf32", "STEP": 16, "SIZE": 1},
    ),
    "near": (
        pairwise_distance.near_kernel,
        {"BK": 32},
        {"x": F, "y": F, "x_norms": F, "y_norms": F, "out": F, "flags": B8},
        {"NEAR_SHARE": 0.015625, "SQUARED": False, "STEP": 16, "ACROSS": 8},
    ),
    "norms": (
        pairwise_distance.norms_kernel,
        {"BP": 4, "BD": 256},
        {"x": H, "y": H, "norms": F, "flags": B8},
        {},
    ),
    "weight": (
        pairwise_distance.weight_kernel,
        {"BN": 128},
        {name: F for name in ("grad", "distance", "norms", "weights", "row_sums", "column_sums")} | {"flags": B8},
        {"NEAR_SHARE": 0.015625, "SQUARED": False, "ROUND": True, "TILE": 32},
    ),
    "gradient": (
        pairwise_distance.gradient_kernel,
        {"BF": 128, "BD": 128},
        {name: H for name in ("x", "y", "x_gradient", "y_gradient")}
        | {name: F for name in ("x_products", "y_products", "row_sums", "column_sums", "grad", "distance", "norms")}
        | {"flags": B8},
        {"NEAR_SHARE": 0.015625, "SQUARED": False, "TILE": 32},
    ),
    "huber": (
        relational_tiles.huber_kernel,
        relational_huber.huber_tuned,
        {name: H for name in ("t_rows", "t_columns", "s_rows", "s_columns", "weights")}
        | {name: F for name in ("notes", "sums", "row_sums", "column_sums")}
        | {"content": I, "delta": "fp32", "share": "fp32", "floor": "fp32"},
        {"AMONG": True, "LOSS": True, "STORE": True, "UNIT": False, "MIRROR": True, "UNIQUE": True, "ROUND": False}
        | {"EVEN": True, "T_PRECISION": "tf32", "S_PRECISION": "tf32", "SIZE": 1},
    ),
    "prepare": (
        relational_tiles.prepare_kernel,
        {"BP": 4, "BD": 256},
        {name: H for name in ("t_sketch", "t_photo", "s_sketch", "s_photo", "t_packed", "s_packed")}
        | {name: F for name in ("pairs", "notes")},
        {"UNIQUE": True},
    ),
    "collect": (
        relational_tiles.collect_kernel,
        {"CROSS_BM": 128, "CROSS_BN": 128, "AMONG_BM": 64, "AMONG_BN": 128, "BT": 32, "BP": 128, "BL": 1024},
        {f"{name}_{what}": F for name in ("cross", "among") for what in ("sums", "rows", "columns")}
        | {"notes": F, "out": F, "totals": F64}
        | {name: "fp32" for name in ("delta", "own_share", "cross_share", "among_share")},
        {"STORE": True, "MIRROR": True, "FIRST": True, "LAST": True},
    ),
    "finish": (
        relational_tiles.finish_kernel,
        {"BP": 4, "BD": 256},
        {name: H for name in ("s_sketch", "s_photo", "sketch_gradient", "photo_gradient")}
        | {name: F for name in ("upstream", "sketch_products", "photo_products", "notes")}
        | {"delta": "fp32", "own_share": "fp32"},
        {"CROSS": True, "PULLED": True},
    ),
    "count": (
        match_rank.count_kernel,
        match_rank.count_tuned,
        {"queries": H, "rows": H, "middles": F, "slacks": F, "low": F, "high": F}
        | {"counts": I, "flags": B8, "marks": I},
        {"SPLIT": False, "EVEN": True, "ROWS": 256, "SIZE": 1},
    ),
    "decide": (
        match_rank.decide_kernel,
        {"BP": 4, "BD": 256, "BS": 64, "BW": 512},
        {"queries": H, "true_rows": H, "rows": H, "counts": I, "flags": B8, "marks": I, "flagged": I, "listed": L}
        | {"ranks": L},
        {"PER": 8},
    ),
    "rows": (
        match_rank.rows_kernel,
        {"BP": 16, "BD": 128},
        {"rows": F, "parts": H, "squares": F64, "middles": F, "slacks": F, "bad": L}
        | {"share": "fp32", "flushed": "fp32"},
        {"SPLIT": True, "BOUNDED": True, "ROWS": 256},
    ),
    "cuts": (
        match_rank.cuts_kernel,
        {"BD": 128},
        {"queries": H, "true_rows": H, "target": L, "low": F, "high": F, "ranks": L, "bad": L, "astray": L}
        | {"share": "fp32", "flushed": "fp32"},
        {"SPLIT": False},
    ),
    "candidates": (
        nearest.candidates_kernel,
        nearest.candidates_tuned,
        {"queries": H, "rows": H, "above": F, "below": F, "cut": F, "margin": F, "listed_counts": I, "listed": I},
        {"SPLIT": False, "EVEN": True, "BUCKETS": 16, "SIZE": 1},
    ),
    "list_distances": (
        nearest.list_distances_kernel,
        {"BP": 16, "BD": 128},
        {"queries": H, "rows": H, "listed_counts": I, "listed": I, "out": F64},
        {},
    ),
    "negatives": (
        hard_negatives.negatives_kernel,
        hard_negatives.negatives_tuned,
        {"sketch": H, "photo": H, "half_norms": F, "own": F, "content": L, "out": L},
        {"SEMI": True, "EVEN": True, "PRECISION": "tf32", "SIZE": 1},
    ),
}


def _configs(name: str) -> list[tuple[dict[str, Any], int, int]]:
    tuned = KERNELS[name][1]
    if isinstance(tuned, dict):
        return [(tuned, 4, 3)]
    return [(c.kwargs, c.num_warps, c.num_stages) for c in tuned.configs]


def _compiled(name: str, architecture: int, number: int) -> Report:
    kernel, tuned, types, constants = KERNELS[name]
    blocks, warps, stages = _configs(name)[number]
    if not isinstance(tuned, dict):  # GPUs of this architecture take rows by descriptors, or by pointers
        constants = constants | {"DESCRIBED": architecture >= 90}
        if architecture >= 90:
            tiles = {operand: [blocks[block] for block in names] for operand, names in tuned.operands.items()}
            types = types | {key: f"tensordesc<{types[key][1:]}{tile}>" for key, tile in tiles.items()}
    return compile_for(architecture, kernel, types, constants | blocks, warps=warps, stages=stages)


def _in_limits(report: Report, architecture: int) -> None:
    assert report.shared <= SHARED_LIMIT[architecture]
    assert report.registers <= 255
    assert report.spilled <= 320  # bytes a thread, beside the 1,020 in its registers


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("name", KERNELS)
def test_compiles_within_limits(name: str, architecture: int) -> None:
    # The smallest but one of the blocks: they compile fastest, and the last may be too narrow for `wgmma`.
    report = _compiled(name, architecture, max(0, len(_configs(name)) - 2))
    _in_limits(report, architecture)
    if not isinstance(KERNELS[name][1], dict):  # matrix products run on the tensor cores
        assert ("wgmma.mma_async" if architecture == 90 else "mma.sync") in report.ptx


@pytest.mark.parametrize("name", KERNELS)
def test_compiles_for_single_rows(name: str) -> None:
    """Triton makes whole numbers of 1 constants of a kernel: code that takes them for values would not compile."""
    kernel, tuned, types, constants = KERNELS[name]
    blocks, warps, stages = _configs(name)[-1]
    given = constants | blocks | (tuned if isinstance(tuned, dict) else {"DESCRIBED": False})
    ones = {argument: 1 for argument in kernel.arg_names if argument not in given and argument not in types}
    compile_for(90, kernel, types, given | ones, warps=warps, stages=stages)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in KERNELS if not isinstance(KERNELS[name][1], dict)])
def test_all_blocks_compile(name: str) -> None:
    """On sm_90 every choice runs; sm_80 has less shared memory, and the autotuner passes over what does not fit."""
    for number in range(len(_configs(name))):
        _in_limits(_compiled(name, 90, number), 90)
    fitting = [r.shared <= SHARED_LIMIT[80] for r in (_compiled(name, 80, n) for n in range(len(_configs(name))))]
    assert any(fitting)
