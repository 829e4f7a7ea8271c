"""Images in folders by class, and images that tables hold as bytes."""

import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.reading.rows import Report, Row, broken, missing_column

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_IMAGE_BYTES = 256 << 20
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no others: some run programs of their own


class ImageForm:
    """Implements `Form`: columns "image", the file's bytes, and "label", the folder that it lies in."""

    name, suffixes = "images", (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

    def columns(self, path: Path, name: str) -> tuple[str, ...]:
        return ("image", "label")

    def rows(self, path: Path, name: str, columns: Sequence[str], report: Report) -> Iterator[Row]:
        for column in columns:
            if column not in ("image", "label"):
                raise missing_column(name, column, ("image", "label"))
        folder, _, _ = name.rpartition("/")
        if not folder:
            raise broken(name, "lies in no folder of its class; put each class's images into a folder of its name")
        if path.stat().st_size > MAX_IMAGE_BYTES:
            raise broken(name, f"is larger than {MAX_IMAGE_BYTES >> 20} MiB; make it smaller")
        yield Row(name, {"image": path.read_bytes(), "label": folder.rpartition("/")[2]})


def open_image(value: Any, where: str) -> "Image":
    """Decoded, in RGB, upright; from bytes of a file, or the table of bytes and path that datasets and Parquet hold. ConfigError where
    it cannot be read, is animated, or is larger than pillow's bound against bombs."""
    from PIL import Image, ImageOps

    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise broken(where, "holds no image; save the images themselves in the data set, not where they lie")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                if getattr(opened, "n_frames", 1) > 1:
                    raise broken(where, "is animated or has several pages; save the one that counts")
                return ImageOps.exif_transpose(opened).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise broken(where, f"has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels; make it smaller") from None
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, EOFError, OverflowError, MemoryError) as error:
        said = " ".join(str(error).split())[:160]
        raise broken(where, f"is no image that can be read ({said}); save it again, or leave it out") from None


__all__ = ["ImageForm", "open_image"]
