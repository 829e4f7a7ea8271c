"""The run's text as tokens; its end is held out. Sample indices follow from public hashes, so nobody
picks data (protocol §4.1)."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from swarm.config import TEXT_FILE, BpeTokenizer, TextConfig
from swarm.data.tokenizer import encode_text, open_tokenizer, read_agreed, tokens_sha256
from swarm.errors import InputError
from swarm.hashing import keccak256
from swarm.records.types import Account, Hash


def unit_seed(run_id: Hash, beacon: Hash, peer: Account, unit: int) -> Hash:
    """keccak(runId ‖ beacon ‖ peer ‖ unit number as uint64)."""
    return keccak256(run_id + beacon + peer + unit.to_bytes(8, "big"))


def sample_offsets(seed: Hash, num_samples: int, num_positions: int) -> np.ndarray:
    """`num_samples` offsets below `num_positions`: SHAKE-256 of the seed, 8 bytes each, modulo (bias below 2⁻³⁰)."""
    raw = hashlib.shake_256(seed).digest(8 * num_samples)
    return (np.frombuffer(raw, dtype=">u8") % np.uint64(num_positions)).astype(np.int64)


def held_out_tokens(num_tokens: int, config: TextConfig) -> int:
    """How many tokens at the end nobody trains on. InputError where too few are left."""
    held = max(config.context + 1, int(num_tokens * config.held_out_fraction))
    if num_tokens - held < config.context + 2:
        raise InputError(
            "task.data",
            f"{num_tokens} tokens",
            f"too little text for samples of {config.context + 1} tokens, one of them held out; add files or take a "
            "smaller task.data.context",
        )
    return held


class TextData:
    """The run's text, checked against its hash. InputError names the file that is missing or differs."""

    def __init__(
        self, config: TextConfig, directory: Path, report: Callable[[float], None] = lambda share: None
    ) -> None:
        text = read_agreed(directory / TEXT_FILE, config.text.sha256)
        if isinstance(config.tokenizer, BpeTokenizer):
            tokens = encode_text(open_tokenizer(config, directory), text, report)
            if tokens_sha256(tokens) != config.tokenizer.tokens_sha256:
                raise InputError(
                    "task.data.tokenizer",
                    str(directory),
                    "cuts the text otherwise here; install the tokenizers version of the run",
                )
        else:
            tokens = np.frombuffer(text, dtype=np.uint8)
        self.context = config.context
        held = held_out_tokens(len(tokens), config)
        self.train, self.held = tokens[:-held], tokens[-held:]

    def batch(self, offsets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, int64 [B, T] each."""
        windows = torch.from_numpy(self.train[offsets[:, None] + np.arange(self.context + 1)].astype(np.int64))
        return windows[:, :-1], windows[:, 1:]

    def num_positions(self) -> int:
        return len(self.train) - self.context

    def held_out(self, num_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same evenly spaced held-out windows for everybody, int64 [N, T] each."""
        last = len(self.held) - self.context - 1
        starts = np.linspace(0, last, num_samples).astype(np.int64)
        windows = torch.from_numpy(self.held[starts[:, None] + np.arange(self.context + 1)].astype(np.int64))
        return windows[:, :-1], windows[:, 1:]
