from __future__ import annotations

import pytest
import torch

from sketchynet.errors import InputError
from sketchynet.models import photo_input, sketch_input
from sketchynet.models.inputs import IMAGE_MEAN, IMAGE_STD


def test_sketch_is_black_ink_on_white_paper() -> None:
    canvas = torch.tensor([[[255, 0], [51, 0]]], dtype=torch.uint8)
    image = sketch_input(canvas)
    assert image.shape == (1, 3, 2, 2) and image.dtype == torch.float32
    for c in range(3):
        expected = [[(v - IMAGE_MEAN[c]) / IMAGE_STD[c] for v in row] for row in ((0.0, 1.0), (0.8, 1.0))]
        torch.testing.assert_close(image[0, c], torch.tensor(expected))


def test_white_photo_equals_empty_canvas() -> None:
    photo = torch.full((2, 4, 4, 3), 255, dtype=torch.uint8)
    empty = torch.zeros(2, 4, 4, dtype=torch.uint8)
    torch.testing.assert_close(photo_input(photo), sketch_input(empty), rtol=0, atol=0)


def test_photo_channels_keep_their_order() -> None:
    photo = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    photo[0, 1, 2] = torch.tensor([255, 102, 0])
    image = photo_input(photo)
    assert image.shape == (1, 3, 2, 3)
    values = [(v - m) / s for v, m, s in zip((1.0, 0.4, 0.0), IMAGE_MEAN, IMAGE_STD, strict=True)]
    torch.testing.assert_close(image[0, :, 1, 2], torch.tensor(values))


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (sketch_input, torch.zeros(1, 8, 8)),
        (sketch_input, torch.zeros(1, 1, 8, 8, dtype=torch.uint8)),
        (photo_input, torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
        (photo_input, torch.zeros(1, 8, 8, 3)),
    ],
)
def test_other_types_and_shapes_are_refused(function, value) -> None:
    with pytest.raises(InputError, match="uint8 tensor"):
        function(value)
