"""What Triton's interpreter needs to be right."""

from __future__ import annotations

import numpy as np


def mend_bfloat16() -> None:
    """Triton 3.7's interpreter multiplies the bit patterns of bfloat16 operands of a dot: widen them to float32 first.

    A bfloat16 is the upper half of a float32, so that the widened product is the tensor core's, exact.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    multiply = InterpreterBuilder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return multiply(self, widened(a), widened(b), *rest)

    InterpreterBuilder.create_dot = create_dot
