"""What the kernels share."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from sketchynet.ops.kernels.tiles import as_tf32


@triton.jit
def round_kernel(x, out, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(out + i, as_tf32(tl.load(x + i)))


def test_numbers_are_rounded_as_tf32_products_read_them() -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 1 << 32, 1024, dtype=np.uint32)
    bits[:6] = 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800000, 0xFF800000, 0x80000000
    x = torch.from_numpy(bits.view(np.float32))
    found = torch.empty_like(x)
    round_kernel[(1,)](x, found, n=1024)
    x, found = x.numpy(), found.numpy()
    assert np.array_equal(np.isnan(found), np.isnan(x))
    finite = np.isfinite(found) & (np.abs(x) >= np.finfo(np.float32).tiny)
    assert np.all(found.view(np.uint32)[~np.isnan(x)] & 0x1FFF == 0)  # eleven bits, the leading one among them
    assert np.all(np.abs(found[finite] - x[finite]) <= 2.0**-11 * np.abs(x[finite]))
    assert np.array_equal(found[3:6], x[3:6])
