"""Inner optimisers over one flat fp32 parameter vector: AdamW, and bitsandbytes' 8-bit AdamW (which steps on a CPU too).

At a boundary the moments are rounded to bf16 and the peer goes on with the rounded values, so that an auditor starts from
the same bits (PROTOCOL §4; fp16 would flush 17–36 % of AdamW's second moments to zero). The 8-bit optimiser's state is
committed as it is.
"""

from typing import Any, Protocol

import torch

from swarm.errors import InputError
from swarm.hashing import sha256


class InnerConfig(Protocol):
    """The part of RunConfig that is needed here."""

    @property
    def optimizer(self) -> str: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip_norm(self) -> float: ...


class InnerOptimizer:
    """Steps `flat` (fp32 [P]) in place from gradients in `grad` (fp32 [P], clobbered by the clip)."""

    def __init__(self, config: InnerConfig, flat: torch.Tensor) -> None:
        self.config = config
        self._parameter = torch.nn.Parameter(flat)  # shares the storage of `flat`
        self._optimizer: Any = None
        self.reset()

    def reset(self) -> None:
        """Zero moments, zero steps."""
        c = self.config
        options: dict[str, Any] = {"lr": 0.0, "betas": tuple(c.betas), "eps": 1e-8, "weight_decay": c.weight_decay}
        self.num_steps = 0
        if c.optimizer == "adamw":
            self._optimizer = torch.optim.AdamW([self._parameter], fused=True, **options)
            zeros = torch.zeros_like(self._parameter.detach())
            self._optimizer.state[self._parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": zeros,
                "exp_avg_sq": zeros.clone(),
            }
        elif c.optimizer == "adamw8bit":
            from bitsandbytes.optim.adamw import AdamW8bit

            self._optimizer = AdamW8bit([self._parameter], min_8bit_size=4096, **options)
        else:
            raise InputError("inner.optimizer", c.optimizer, "must be adamw or adamw8bit")

    def step(self, grad: torch.Tensor, lr: float) -> None:
        """Clip `grad` to the run's norm and take one step."""
        norm = torch.linalg.vector_norm(grad)
        grad.mul_((self.config.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        self._parameter.grad = grad
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self.num_steps += 1

    def round_state(self) -> None:
        """Round the moments to what is committed; training goes on with the rounded values."""
        if self.config.optimizer == "adamw":
            state = self._optimizer.state[self._parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                state[name].copy_(state[name].bfloat16().float())

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """What is committed and handed to an auditor: bf16 [P] moments, or the 8-bit optimiser's own tensors."""
        state = self._optimizer.state[self._parameter]
        if self.config.optimizer == "adamw":
            return {name: state[name].bfloat16() for name in ("exp_avg", "exp_avg_sq")}
        return {
            name: value.detach().clone()
            for name, value in sorted(state.items())
            if isinstance(value, torch.Tensor) and "qmap" not in name
        }

    def exact_tensors(self) -> dict[str, torch.Tensor]:
        """As `state_tensors`, without rounding: what a snapshot between two boundaries needs."""
        if self.config.optimizer == "adamw":
            state = self._optimizer.state[self._parameter]
            return {name: state[name] for name in ("exp_avg", "exp_avg_sq")}
        return self.state_tensors()

    def load_exact_tensors(self, tensors: dict[str, torch.Tensor], num_steps: int) -> None:
        """Back to what `exact_tensors` gave."""
        self.load_state_tensors(tensors, num_steps)

    def load_state_tensors(self, tensors: dict[str, torch.Tensor], num_steps: int) -> None:
        """Back to what `state_tensors` gave after `num_steps` steps."""
        self.reset()
        self.num_steps = num_steps
        if self.config.optimizer == "adamw":
            state = self._optimizer.state[self._parameter]
            state["step"].fill_(float(num_steps))
            for name in ("exp_avg", "exp_avg_sq"):
                state[name].copy_(tensors[name].float())
        elif tensors:
            # The 8-bit state is laid out by a first step; a zero gradient at lr 0 moves nothing.
            self._parameter.grad = torch.zeros_like(self._parameter)
            self._optimizer.step()
            state = self._optimizer.state[self._parameter]
            for name, value in tensors.items():
                state[name].copy_(value)
            state["step"] = num_steps


def state_hash(tensors: dict[str, torch.Tensor], residual: torch.Tensor, num_steps: int) -> bytes:
    """stateBefore / stateAfter of a Contribution: sha-256 over the optimiser's committed tensors in order of their names,
    the residual in fp16 (little-endian) and the step count."""
    pieces = [num_steps.to_bytes(8, "big")]
    for name, value in [*sorted(tensors.items()), ("residual", residual.half())]:
        raw = value.detach().contiguous().view(torch.uint8).numpy().tobytes()
        pieces.append(name.encode() + b"\0" + len(raw).to_bytes(8, "big") + raw)
    return sha256(b"".join(pieces))
