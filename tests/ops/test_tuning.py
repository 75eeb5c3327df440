"""The tuner of block sizes, without a GPU: a kernel that does nothing, and times that are given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")  # on Linux a dependency of the tests

from sketchynet.ops.kernels import tiles


class Kernel:
    arg_names = ("x", "out", "D", "BM")
    cache_key = "a kernel of these tests"

    def __init__(self) -> None:
        self.launched: list[dict[str, Any]] = []

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **meta: self.launched.append(meta)


@pytest.fixture
def tuner(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Makes tuners of one kernel, as processes would that share a cache on disk."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiles, "interpreting", lambda: False)
    monkeypatch.setattr(tiles, "device_properties", lambda _: SimpleNamespace(name="a GPU"))
    kernel = Kernel()
    choices = [tiles.config(4, 2, BM=size) for size in (16, 32, 64)]

    def make(milliseconds: dict[int, float]) -> tuple[tiles.Tuned, list[int]]:
        tuned = tiles.Tuned(kernel, choices, ["D"], operands={"x": ("BM",)}, reset=["out"])
        timed: list[int] = []

        def time(choice: Any, *_: Any) -> float:
            timed.append(choice.kwargs["BM"])
            return milliseconds[choice.kwargs["BM"]]

        monkeypatch.setattr(tuned, "_time", time)
        return tuned, timed

    return make, kernel


def test_the_fastest_blocks_run_and_are_found_once(tuner) -> None:
    make, kernel = tuner
    tuned, timed = make({16: 3.0, 32: 1.0, 64: float("inf")})
    x, out = torch.zeros(4, 4), torch.ones(4)
    for _ in range(2):
        tuned.launch(lambda meta: (1,), x, out, 4)
    assert timed == [16, 32, 64]
    assert [launch["BM"] for launch in kernel.launched] == [32, 32]
    assert out.sum() == 0  # trials left their sums there
    other, again = make({16: 1.0, 32: 3.0, 64: 2.0})  # another process finds what the first one measured
    other.launch(lambda meta: (1,), x, out, 4)
    assert again == [] and kernel.launched[-1]["BM"] == 32


def test_each_type_and_size_is_tuned_apart(tuner) -> None:
    make, _ = tuner
    tuned, timed = make({16: 1.0, 32: 2.0, 64: 3.0})
    out = torch.ones(4)
    tuned.launch(lambda meta: (1,), torch.zeros(4, 4), out, 4)
    tuned.launch(lambda meta: (1,), torch.zeros(4, 4, dtype=torch.bfloat16), out, 4)
    tuned.launch(lambda meta: (1,), torch.zeros(4, 4), out, 8)
    assert len(timed) == 9 and len(tuned.best) == 3


def test_pinned_blocks_are_taken_untimed(tuner) -> None:
    make, kernel = tuner
    tuned, timed = make({})
    tuned.pin(2)
    tuned.launch(lambda meta: (1,), torch.zeros(4, 4), torch.ones(4), 4)
    assert timed == [] and kernel.launched[-1]["BM"] == 64 and tuned.choices == [{"BM": 64}]


class Compiled:
    """What a launch leaves behind: launched itself from then on."""

    def __init__(self) -> None:
        self.launched: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments: self.launched.append((grid, *arguments))


class Compiling(Kernel):
    arg_names = ("x", "rate", "n", "BM", "FLAG")

    def __getitem__(self, grid: Any) -> Any:
        def compile_and_launch(*arguments: Any, **meta: Any) -> Compiled:
            self.launched.append(meta)
            return Compiled()

        return compile_and_launch


def test_a_kernel_is_bound_once_for_each_kind_of_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "interpreting", lambda: False)
    monkeypatch.setattr(tiles, "_compiled", {})
    kernel, x = Compiling(), torch.zeros(64)
    for rate, n in ((0.5, 32), (0.25, 48)):  # multiples of 16, and any real number, are of one kind
        tiles.launch(kernel, (3,), x, rate, n, FLAG=True, BM=16, num_warps=2)
    (compiled, _), = tiles._compiled.values()
    assert len(kernel.launched) == 1
    assert compiled.launched == [((3, 1, 1), x, 0.25, 48, 16, True)]  # constants in the kernel's order
    others = [(x.half(), 32, {}), (x[1:], 32, {}), (x, 1, {}), (x, 33, {}), (x, 1 << 40, {}), (x, 32, {"num_warps": 4})]
    for tensor, n, changed in others:
        tiles.launch(kernel, (3,), tensor, 0.5, n, **({"FLAG": True, "BM": 16, "num_warps": 2} | changed))
    assert len(kernel.launched) == 1 + len(others) == len(tiles._compiled)


@pytest.mark.parametrize("across, count, processors", [(32, 1024, 132), (1, 7, 132), (400, 3, 132), (32, 835, 108)])
def test_a_gallery_is_split_so_that_no_processor_waits_long(across: int, count: int, processors: int) -> None:
    from sketchynet.ops.kernels import match_rank

    def turns(parts: int) -> int:
        return tiles.cdiv(across * parts, processors) * tiles.cdiv(count, parts)

    parts = match_rank._splits(across, count, processors)
    assert 1 <= parts <= count
    assert turns(parts) <= 1.05 * min(turns(p) for p in range(1, count + 1)) + 1
