"""Images as records hold them."""

from typing import TYPE_CHECKING

import numpy as np

from swarm.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


def square_pixels(image: "Image", size: int, channels: int) -> np.ndarray:
    """uint8 [size, size, channels]: turned as its camera says, on white where it is transparent, scaled without regard to its shape (as
    transformers' processors do). InputError where it cannot be read to its end."""
    from PIL import Image, ImageOps

    try:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            seen = image.convert("RGBA")
            ground = Image.new("RGBA", seen.size, "white")
            image = Image.alpha_composite(ground, seen)
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError("image", None, f"cannot be read ({said}); mend it or leave it out") from None
    return np.asarray(image, dtype=np.uint8).reshape(size, size, channels)


__all__ = ["square_pixels"]
