"""These tests run kernels on CPU tensors; `tests/ops/test_interpreted.py` starts them in a process of their own."""

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
