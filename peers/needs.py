"""What a run asks of a peer's memory, on a machine without a card. Pure; `benchmarks.memory` measures it."""

from swarm.averaging.parts import MEMORY_BYTES
from swarm.config import RunConfig
from swarm.optim.codec import wire_bytes

# The process with Python, torch and transformers: 410 MB; the daemon of the network 75, the process that watches over both 30.
PROCESS_BYTES = 515_000_000
KEPT_ROUNDS = 3  # whose parts and averages are in memory for those who come late, as far as there is room
STEP_SHARE = 1.2  # of what a forward pass keeps: gradients of it on their way back, and what the allocator cannot use


def committed_bytes(config: RunConfig, values: int, hidden: int) -> int:
    """Of the optimiser's state as it is kept for audits. `hidden`: values of the model's hidden matrices."""
    return {
        "adamw": 4 * values,
        "adamw8bit": 2 * values + values // 32,
        "muon": 4 * values - 2 * hidden,
        "sgd": 0,
    }[config.inner.optimizer]


def model_bytes(config: RunConfig, values: int, hidden: int) -> int:
    """Of a round at its highest: weights, gradient, anchor and its momentum and those of the next one, fp32; the optimiser's state; the
    residual in fp16, the own contribution, and the bytes of rounds."""
    state = committed_bytes(config, values, hidden)
    state *= 1 if config.inner.optimizer == "adamw8bit" else 2  # bf16 where it is committed, else fp32
    sent, got = wire_bytes(values, config.codec.contribution), wire_bytes(values, config.codec.average)
    return 6 * 4 * values + state + 2 * values + sent + min(MEMORY_BYTES, KEPT_ROUNDS * (sent + got))


def memory_bytes(config: RunConfig, values: int, hidden: int, kept_bytes: int, frozen_bytes: int = 0) -> int:
    """At the highest, all processes of a peer; `kept_bytes` as of `swarm.tasks`, `frozen_bytes` as of `swarm.models`."""
    step = int(STEP_SHARE * kept_bytes * config.inner.batch_size)
    return PROCESS_BYTES + model_bytes(config, values, hidden) + frozen_bytes + step


__all__ = ["committed_bytes", "memory_bytes", "model_bytes"]
