"""Pixels -> a thumbnail embedded in an HTML page."""

import base64
import io

import numpy as np
from PIL import Image

SIDE = 160  # longest side of a thumbnail, pixels
SMALL_SIDE = 112  # of one among hundreds


def data_url(pixels: np.ndarray, side: int = SIDE) -> str:
    """uint8 [H, W, 3] -> a small JPEG as a data: URL; small images are enlarged without smoothing."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    elif max(picture.size) <= side // 2:
        factor = side // max(picture.size)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
