"""Models by configuration, from what is installed; never code that came with a run."""

from swarm.models.flat import FlatModel, Trainable
from swarm.models.transformer import build_model, check_model

__all__ = ["FlatModel", "Trainable", "build_model", "check_model"]
