"""The one thing that the convolutional models ask of their input."""

from typing import Tuple

from flq.errors import DataError


def require_images(name: str, input_shape: Tuple[int, ...]) -> None:
    """Raise DataError unless samples have the shape (height, width, channels), large enough to be
    halved twice.
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < 4:
        raise DataError(
            f"model {name} needs images",
            "samples of shape (height, width, channels), at least 4 x 4", input_shape,
            "use model mlp or softmax, or store images as [n, height, width, channels]")
