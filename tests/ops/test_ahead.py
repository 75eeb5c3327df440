"""Every kernel is compiled for sm_80 and sm_90; what it takes of a multiprocessor stays within its limits."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("triton")  # on Linux a dependency of the tests
assert os.environ.get("TRITON_INTERPRET") != "1", "the interpreter does not compile: unset TRITON_INTERPRET"

from ahead import SHARED_LIMIT, Report, compile_for

from sketchynet.ops.kernels import hard_negatives, match_rank, nearest, pairwise_distance, relational_huber

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
    "weight": (
        pairwise_distance.weight_kernel,
        {"BN": 128},
        {"grad": F, "distance": F, "x_norms": F, "y_norms": F, "weights": F, "flags": B8},
        {"NEAR_SHARE": 0.015625, "SQUARED": False, "TILE": 32},
    ),
    "pack": (
        pairwise_distance.pack_kernel,
        {"BP": 4, "BD": 256},
        {"rows": H, "packed": H, "norms": F},
        {"PACK": True},
    ),
    "gradient": (
        pairwise_distance.gradient_kernel,
        {"BF": 128, "BD": 128},
        {"own": H, "other": H, "products": F, "grad": F, "distance": F, "own_norms": F, "other_norms": F}
        | {"flags": B8, "out": H},
        {"NEAR_SHARE": 0.015625, "SQUARED": False, "TILE": 32},
    ),
    "huber": (
        relational_huber.huber_kernel,
        relational_huber.huber_tuned,
        {name: H for name in ("t_rows", "t_columns", "s_rows", "s_columns", "weights")}
        | {name: F for name in ("t_norms", "t_norms_columns", "s_norms", "s_norms_columns", "scales", "sums")}
        | {"content": I, "delta": "fp32", "share": "fp32", "floor": "fp32"},
        {"LOSS": True, "STORE": True, "UNIT": False, "MIRROR": True, "UNIQUE": True, "EVEN": True}
        | {"T_PRECISION": "tf32", "S_PRECISION": "tf32", "SIZE": 1},
    ),
    "prepare": (
        relational_huber.prepare_kernel,
        {"BP": 4, "BD": 256},
        {name: H for name in ("t_sketch", "t_photo", "s_sketch", "s_photo", "packed")}
        | {name: F for name in ("t_norms", "s_norms", "t_own", "s_own")},
        {},
    ),
    "total": (
        relational_huber.total_kernel,
        {"BP": 1024},
        {name: F for name in ("t_own", "s_own", "cross", "among", "scales", "pair", "out")}
        | {name: "fp32" for name in ("delta", "own_share", "cross_share", "among_share")},
        {},
    ),
    "finish": (
        relational_huber.finish_kernel,
        {"BP": 4, "BD": 256},
        {name: F for name in ("sketch_products", "photo_products", "t_own", "s_own", "scales", "pair")}
        | {"packed": H, "sketch_gradient": F, "photo_gradient": F, "delta": "fp32", "own_share": "fp32"},
        {},
    ),
    "count": (
        match_rank.count_kernel,
        match_rank.count_tuned,
        {"queries": H, "rows": H, "above": F, "below": F, "low": F, "high": F}
        | {"counts": I, "marks": I},
        {"SPLIT": False, "EVEN": True, "SIZE": 1},
    ),
    "decide": (
        match_rank.decide_kernel,
        {"BP": 16, "BD": 512, "BS": 16, "BW": 1024},
        {"queries": H, "true_rows": H, "rows": H, "counts": I, "marks": I, "listed": L, "ranks": L},
        {},
    ),
    "rows": (
        match_rank.rows_kernel,
        {"BP": 16, "BD": 128},
        {"rows": F, "parts": H, "squares": F64, "above": F, "below": F, "bad": L}
        | {"share": "fp32", "flushed": "fp32"},
        {"SPLIT": True, "BOUNDED": True},
    ),
    "cuts": (
        match_rank.cuts_kernel,
        {"BD": 128},
        {"queries": H, "true_rows": H, "low": F, "high": F, "bad": L}
        | {"share": "fp32", "flushed": "fp32"},
        {},
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in KERNELS if not isinstance(KERNELS[name][1], dict)])
def test_all_blocks_compile(name: str) -> None:
    """On sm_90 every choice runs; sm_80 has less shared memory, and the autotuner passes over what does not fit."""
    for number in range(len(_configs(name))):
        _in_limits(_compiled(name, 90, number), 90)
    fitting = [r.shared <= SHARED_LIMIT[80] for r in (_compiled(name, 80, n) for n in range(len(_configs(name))))]
    assert any(fitting)
