"""Models by configuration, from what is installed; never code that came with a run."""

from swarm.models.flat import FlatModel, Trainable
from swarm.models.transformer import Purpose, build_model, check_model, for_images, for_tokens

__all__ = ["FlatModel", "Purpose", "Trainable", "build_model", "check_model", "for_images", "for_tokens"]
