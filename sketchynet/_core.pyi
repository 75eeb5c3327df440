import numpy as np
from numpy.typing import NDArray

def rasterize(
    points: NDArray[np.float32],
    stroke_offsets: NDArray[np.int64],
    sketch_offsets: NDArray[np.int64],
    line_widths: NDArray[np.float64],
    erasers: NDArray[np.bool_] | None,
    size: int,
    threads: int,
    out: NDArray[np.uint8],
) -> None: ...
def simplify(
    points: NDArray[np.float32],
    stroke_offsets: NDArray[np.int64],
    tolerance: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
