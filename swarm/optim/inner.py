"""Inner optimisers over one flat fp32 parameter vector: AdamW, bitsandbytes' 8-bit AdamW (which steps on a CPU too), SGD.

At a boundary the moments are rounded to bf16 and the peer goes on with the rounded values, so that an auditor starts from
the same bits (protocol §4.3; fp16 would flush 17–36 % of AdamW's second moments to zero). The 8-bit optimiser's state is
committed as it is.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from swarm.device import copy_to_host, to_bytes, to_host
from swarm.errors import InputError, PeerFault

EPSILON = 1e-8
EIGHT_BIT_BLOCK = 256


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
    """Steps `flat` (fp32 [P]) in place from gradients in `grad` (fp32 [P], clobbered by the clip). The moments lie where `flat`
    does; what is committed, kept and loaded is on the host."""

    def __init__(self, config: InnerConfig, flat: torch.Tensor) -> None:
        self.config, self.device = config, flat.device
        self._parameter = torch.nn.Parameter(flat)  # shares the storage of `flat`
        self._optimizer: Any = None
        self.reset()

    def reset(self) -> None:
        """Zero moments, zero steps."""
        c = self.config
        options: dict[str, Any] = {"lr": 0.0, "weight_decay": c.weight_decay}
        self.num_steps = 0
        if c.optimizer == "adamw":
            self._optimizer = torch.optim.AdamW([self._parameter], fused=True, betas=c.betas, eps=EPSILON, **options)
            zeros = torch.zeros_like(self._parameter.detach())
            self._optimizer.state[self._parameter] = {
                "step": torch.zeros((), device=self.device),
                "exp_avg": zeros,
                "exp_avg_sq": zeros.clone(),
            }
        elif c.optimizer == "adamw8bit":
            from bitsandbytes.optim.adamw import AdamW8bit

            self._optimizer = AdamW8bit(
                [self._parameter], min_8bit_size=4096, betas=tuple(c.betas), eps=EPSILON, **options
            )
        elif c.optimizer == "sgd":
            self._optimizer = torch.optim.SGD([self._parameter], **options)
        else:
            raise InputError("inner.optimizer", c.optimizer, "must be adamw, adamw8bit or sgd")

    def step(self, grad: torch.Tensor, lr: float) -> None:
        """Clip `grad` to the run's norm and take one step."""
        norm = torch.linalg.vector_norm(grad)
        grad.mul_((self.config.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        self._parameter.grad = grad
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self.num_steps += 1

    def round_state(self) -> dict[str, torch.Tensor]:
        """Round the moments to what is committed, and give that (as `state_tensors`); training goes on with it."""
        committed = self.state_tensors()
        if self.config.optimizer == "adamw":
            state = self._optimizer.state[self._parameter]
            for name, value in committed.items():
                state[name].copy_(value)
        return committed

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """What is committed and handed to an auditor, copied to the host: bf16 [P] moments, or the 8-bit optimiser's own tensors."""
        state = self._optimizer.state[self._parameter]
        if self.config.optimizer == "adamw":
            return {name: to_host(state[name].bfloat16()) for name in ("exp_avg", "exp_avg_sq")}
        return {
            name: copy_to_host(value)
            for name, value in sorted(state.items())
            if isinstance(value, torch.Tensor) and "qmap" not in name
        }

    def exact_tensors(self) -> dict[str, torch.Tensor]:
        """The same without rounding: what a snapshot between two boundaries needs."""
        if self.config.optimizer == "adamw":
            state = self._optimizer.state[self._parameter]
            return {name: copy_to_host(state[name]) for name in ("exp_avg", "exp_avg_sq")}
        return self.state_tensors()

    def load_state_tensors(self, tensors: dict[str, torch.Tensor], num_steps: int) -> None:
        """Back to what `state_tensors` or `exact_tensors` gave after `num_steps` steps. `PeerFault` where names, shapes or types
        are not those of this optimiser."""
        self.reset()
        self.num_steps = num_steps
        if self.config.optimizer == "adamw8bit" and tensors:
            # The 8-bit state is laid out by a first step; a zero gradient at lr 0 moves nothing.
            self._parameter.grad = torch.zeros_like(self._parameter)
            self._optimizer.step()
        state = self._optimizer.state[self._parameter]
        expected = self.state_tensors()
        if set(tensors) != set(expected):
            raise PeerFault(f"moments: {sorted(tensors)} given, {sorted(expected)} expected")
        for name, value in tensors.items():
            same_type = value.dtype in (expected[name].dtype, state[name].dtype)
            if value.shape != expected[name].shape or not same_type:
                raise PeerFault(f"moments: {name} is {value.dtype} {tuple(value.shape)}")
            state[name].copy_(value)
        if self.config.optimizer == "adamw":
            state["step"].fill_(float(num_steps))
        elif tensors:
            state["step"] = num_steps

    def moments(self) -> dict[str, torch.Tensor]:
        """The moments as numbers, fp32 [P] each: to measure how far two states are apart."""
        state = self._optimizer.state[self._parameter]
        if self.config.optimizer == "adamw":
            return {name: state[name] for name in ("exp_avg", "exp_avg_sq")}
        found = {}
        for number in ("1", "2"):
            codes = state.get(f"state{number}")
            if codes is not None and codes.dtype == torch.uint8:
                scales = state[f"absmax{number}"].repeat_interleave(EIGHT_BIT_BLOCK)[: codes.numel()]
                found[f"state{number}"] = state[f"qmap{number}"][codes.long()] * scales
            elif codes is not None:
                found[f"state{number}"] = codes
        return found


@dataclass(frozen=True)
class CommittedState:
    """What stateBefore and stateAfter of a Contribution are the hash of. `residual`: fp16 [P]."""

    tensors: dict[str, torch.Tensor]
    residual: torch.Tensor
    num_steps: int

    def hash(self) -> bytes:
        """sha-256 over the step count, the optimiser's committed tensors in order of their names, and the residual
        (little-endian, each with its name and length)."""
        digest = hashlib.sha256(self.num_steps.to_bytes(8, "big"))
        for name, value in [*sorted(self.tensors.items()), ("residual", self.residual)]:
            raw = to_bytes(value)
            digest.update(name.encode() + b"\0" + raw.nbytes.to_bytes(8, "big"))
            digest.update(raw)
        return digest.digest()
