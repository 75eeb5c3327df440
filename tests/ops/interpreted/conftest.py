"""These tests run kernels on CPU tensors; `tests/ops/test_interpreted.py` starts them in a process of their own."""

from __future__ import annotations

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    from interpreter import mend_bfloat16

    mend_bfloat16()
    collect_ignore_glob: list[str] = []
else:
    collect_ignore_glob = ["test_*.py"]
