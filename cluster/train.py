"""Job entry point: ``sketchynet train`` on the Ray cluster that this machine belongs to.

    ray job submit --working-dir cluster -- python train.py RECIPE --workers 8 --data DIR
    ray submit cluster/local.yaml cluster/train.py RECIPE --workers 8 --data DIR

The arguments are those of ``sketchynet train``.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # `ray job submit` sets the address; `ray submit` runs this on the head machine, where "auto" finds it.
    os.environ.setdefault("RAY_ADDRESS", "auto")

    from sketchynet.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
