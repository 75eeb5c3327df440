import numpy as np
from numpy.typing import NDArray

def rasterize(
    points: NDArray[np.float32],
    stroke_offsets: NDArray[np.int64],
    sketch_offsets: NDArray[np.int64],
    stroke_widths: NDArray[np.float64] | None,
    erasers: NDArray[np.bool_] | None,
    line_width: float,
    widths_in_pixels: bool,
    sketches: NDArray[np.int64],
    sizes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    threads: int,
    out: NDArray[np.uint8],
) -> None: ...
def instruction_sets() -> list[str]: ...
def instruction_set() -> str: ...
def use_instruction_set(name: str) -> bool: ...
def simplify(
    points: NDArray[np.float32],
    stroke_offsets: NDArray[np.int64],
    tolerance: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def row_squares(rows: NDArray[np.float32], threads: int, out: NDArray[np.float64]) -> None: ...
def row_distances(x: NDArray[np.float32], y: NDArray[np.float32], out: NDArray[np.float64]) -> None: ...
def count_nearer(
    products: NDArray[np.float32],
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    above: NDArray[np.float32],
    below: NDArray[np.float32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    true_squared: NDArray[np.float64],
    threads: int,
    counts: NDArray[np.int64],
) -> None: ...
def norm_statistics(
    x: NDArray[np.float32], threads: int, mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> None: ...
def norm_forward(
    x: NDArray[np.float32],
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    low: float,
    high: float,
    threads: int,
    y: NDArray[np.float32],
) -> None: ...
def norm_gradient_sums(
    x: NDArray[np.float32],
    dy: NDArray[np.float32],
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    low: float,
    high: float,
    threads: int,
    plain: NDArray[np.float64],
    scaled: NDArray[np.float64],
) -> None: ...
def norm_backward(
    x: NDArray[np.float32],
    dy: NDArray[np.float32],
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    low: float,
    high: float,
    slope: NDArray[np.float32],
    offset: NDArray[np.float32],
    threads: int,
    dx: NDArray[np.float32],
) -> None: ...
