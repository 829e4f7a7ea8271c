"""Inner optimisers over one flat fp32 parameter vector: AdamW, Muon, bitsandbytes' 8-bit AdamW (which steps on a CPU too), SGD.

At a boundary the moments are rounded to bf16 and the peer goes on with the rounded values, so that an auditor starts from
the same bits (protocol §4.3; fp16 would flush 17–36 % of AdamW's second moments to zero). The 8-bit optimiser's state is
committed as it is.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from swarm.device import copy_to_host, to_bytes, to_host
from swarm.errors import InputError, PeerFault
from swarm.matrices import Matrix, gaps
from swarm.optim.orthogonal import orthogonalise

EPSILON = 1e-8
EIGHT_BIT_BLOCK, EIGHT_BIT_PIECE, LEAST_8BIT = 256, 1 << 22, 4096
MUON_MOMENTUM, MUON_SCALE = 0.95, 0.2


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


class Rule(Protocol):
    """One optimiser's step and its state. `is_rounded`: the state is fp32, and committed in bf16."""

    is_rounded: bool

    def step(self, grad: torch.Tensor, lr: float) -> None: ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a step changes besides the parameters, to be copied into."""

    def prepare(self, num_steps: int) -> None:
        """The state to come is that after `num_steps` steps; tensors that only a first step makes are made now."""


class AdamW:
    """Of `slices` of `flat`, fused."""

    is_rounded = True

    def __init__(self, config: InnerConfig, flat: torch.Tensor, slices: Sequence[slice]) -> None:
        self.slices = slices
        self._parameters = [torch.nn.Parameter(flat[where]) for where in slices]  # they share the storage of `flat`
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=0.0, weight_decay=config.weight_decay, fused=True, betas=config.betas, eps=EPSILON
        )
        sizes = [parameter.numel() for parameter in self._parameters]
        self._moments = {name: torch.zeros(sum(sizes), device=flat.device) for name in ("exp_avg", "exp_avg_sq")}
        views = {name: torch.split(value, sizes) for name, value in self._moments.items()}
        for index, parameter in enumerate(self._parameters):
            step = torch.zeros((), device=flat.device)
            self._optimizer.state[parameter] = {"step": step, **{name: views[name][index] for name in views}}

    def step(self, grad: torch.Tensor, lr: float) -> None:
        for parameter, where in zip(self._parameters, self.slices, strict=True):
            parameter.grad = grad[where]
        self._optimizer.param_groups[0]["lr"] = lr
        self._optimizer.step()

    def tensors(self) -> dict[str, torch.Tensor]:
        return self._moments

    def prepare(self, num_steps: int) -> None:
        for parameter in self._parameters:
            self._optimizer.state[parameter]["step"].fill_(float(num_steps))


class Muon:
    """Momentum, orthogonalised, for the model's matrices, and AdamW for all else (Jordan 2024; rate and decay as AdamW's by a scale of
    0.2·√(longer side): arXiv:2502.16982)."""

    is_rounded = True

    def __init__(self, config: InnerConfig, flat: torch.Tensor, matrices: Sequence[Matrix]) -> None:
        self.flat, self.decay, self.matrices = flat, config.weight_decay, matrices
        self._rest = AdamW(config, flat, gaps(matrices, flat.numel()))
        sizes = [matrix.rows * matrix.columns for matrix in matrices]
        self._momentum = torch.zeros(sum(sizes), device=flat.device)
        self._views = torch.split(self._momentum, sizes)

    def step(self, grad: torch.Tensor, lr: float) -> None:
        self._rest.step(grad, lr)
        for matrix, view in zip(self.matrices, self._views, strict=True):
            gradient = grad[matrix.where]
            view.lerp_(gradient, 1.0 - MUON_MOMENTUM)
            wanted = gradient.lerp(view, MUON_MOMENTUM).view(matrix.rows, matrix.columns)
            parameter = self.flat[matrix.where]
            parameter.mul_(1.0 - lr * self.decay)
            scale = MUON_SCALE * math.sqrt(max(matrix.rows, matrix.columns))
            parameter.add_(orthogonalise(wanted).flatten(), alpha=-lr * scale)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {**self._rest.tensors(), "momentum": self._momentum}

    def prepare(self, num_steps: int) -> None:
        self._rest.prepare(num_steps)


class AdamW8bit:
    """bitsandbytes'. On a CPU it makes five fp32 temporaries of what it steps, so it steps a piece at a time; its blocks lie in one piece
    each, and so nothing else changes."""

    is_rounded = False

    def __init__(self, config: InnerConfig, flat: torch.Tensor) -> None:
        from bitsandbytes.optim.adamw import AdamW8bit as Theirs

        self.flat, self._slices = flat, _pieces(flat.numel())
        self._parameters = [torch.nn.Parameter(flat[where]) for where in self._slices]
        self._optimizer = Theirs(
            self._parameters, lr=0.0, weight_decay=config.weight_decay, min_8bit_size=LEAST_8BIT, betas=tuple(config.betas),
            eps=EPSILON,
        )  # fmt: skip
        self._whole: dict[str, torch.Tensor] = {}  # after a first step

    def step(self, grad: torch.Tensor, lr: float) -> None:
        for parameter, where in zip(self._parameters, self._slices, strict=True):
            parameter.grad = grad[where]
        self._optimizer.param_groups[0]["lr"] = lr
        self._optimizer.step()
        if not self._whole:
            self._whole = {name: self._joined(name) for name in sorted(self._first()) if self._is_state(name)}

    def _first(self) -> dict[str, Any]:
        """The optimiser's state of the first piece, as its library calls it."""
        state: dict[str, Any] = self._optimizer.state[self._parameters[0]]
        return state

    def _is_state(self, name: str) -> bool:
        return isinstance(self._first()[name], torch.Tensor) and "qmap" not in name

    def _joined(self, name: str) -> torch.Tensor:
        """One tensor, of which the pieces' are views from now on."""
        states = [self._optimizer.state[parameter] for parameter in self._parameters]
        whole = torch.cat([state[name] for state in states])
        for state, view in zip(states, torch.split(whole, [state[name].numel() for state in states]), strict=True):
            state[name] = view
        return whole

    def tensors(self) -> dict[str, torch.Tensor]:
        return self._whole

    def prepare(self, num_steps: int) -> None:
        if num_steps:
            # The 8-bit state is laid out by a first step; a zero gradient at lr 0 moves nothing.
            self.step(torch.zeros_like(self.flat), 0.0)
            for parameter in self._parameters:
                self._optimizer.state[parameter]["step"] = num_steps

    def as_numbers(self) -> dict[str, torch.Tensor]:
        state, found = {**self._first(), **self._whole}, {}
        for name in ("state1", "state2"):
            codes = self._whole.get(name)
            if codes is not None and codes.dtype == torch.uint8:
                scales = self._whole[f"absmax{name[-1]}"].repeat_interleave(EIGHT_BIT_BLOCK)[: codes.numel()]
                found[name] = state[f"qmap{name[-1]}"][codes.long()] * scales
            elif codes is not None:
                found[name] = codes
        return found


def _pieces(num_values: int) -> list[slice]:
    """None but a small model's is so short that bitsandbytes would keep its state in fp32."""
    starts = list(range(0, num_values, EIGHT_BIT_PIECE)) or [0]
    if len(starts) > 1 and num_values - starts[-1] < LEAST_8BIT:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], num_values], strict=True)]


class Sgd:
    """Plain: no state."""

    is_rounded = False

    def __init__(self, config: InnerConfig, flat: torch.Tensor) -> None:
        self._parameter = torch.nn.Parameter(flat)
        self._optimizer = torch.optim.SGD([self._parameter], lr=0.0, weight_decay=config.weight_decay)

    def step(self, grad: torch.Tensor, lr: float) -> None:
        self._parameter.grad = grad
        self._optimizer.param_groups[0]["lr"] = lr
        self._optimizer.step()

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def prepare(self, num_steps: int) -> None:
        pass


class InnerOptimizer:
    """Steps `flat` (fp32 [P]) in place from gradients in `grad` (fp32 [P], clobbered by the clip). The moments lie where `flat`
    does; what is committed, kept and loaded is on the host. `matrices`: where the model's hidden matrices lie in `flat`, for muon."""

    def __init__(self, config: InnerConfig, flat: torch.Tensor, matrices: Sequence[Matrix] = ()) -> None:
        self.config, self.flat, self.device, self.matrices = config, flat, flat.device, tuple(matrices)
        self.reset()

    def reset(self) -> None:
        """Zero moments, zero steps."""
        self.num_steps = 0
        self._rule: Rule = self._new_rule()

    def _new_rule(self) -> Rule:
        config, flat = self.config, self.flat
        if config.optimizer == "adamw":
            return AdamW(config, flat, [slice(0, flat.numel())])
        if config.optimizer == "muon":
            return Muon(config, flat, self.matrices)
        if config.optimizer == "adamw8bit":
            return AdamW8bit(config, flat)
        if config.optimizer == "sgd":
            return Sgd(config, flat)
        raise InputError("inner.optimizer", config.optimizer, "must be adamw, adamw8bit, muon or sgd")

    def step(self, grad: torch.Tensor, lr: float) -> None:
        """Clip `grad` to the run's norm and take one step."""
        norm = torch.linalg.vector_norm(grad)
        grad.mul_((self.config.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        self._rule.step(grad, lr)
        self.num_steps += 1

    def round_state(self) -> dict[str, torch.Tensor]:
        """Round the moments to what is committed, and give that (as `state_tensors`); training goes on with it."""
        committed = self.state_tensors()
        if self._rule.is_rounded:
            for name, value in self._rule.tensors().items():
                value.copy_(committed[name])
        return committed

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """What is committed and handed to an auditor, copied to the host: bf16 moments, or the 8-bit optimiser's own tensors."""
        if self._rule.is_rounded:
            return {name: to_host(value.bfloat16()) for name, value in self._rule.tensors().items()}
        return self.exact_tensors()

    def exact_tensors(self) -> dict[str, torch.Tensor]:
        """The same without rounding: what a snapshot between two boundaries needs."""
        return {name: copy_to_host(value) for name, value in self.own_tensors().items()}

    def own_tensors(self) -> dict[str, torch.Tensor]:
        """They themselves, where they lie: a step changes them."""
        return self._rule.tensors()

    def load_state_tensors(self, tensors: dict[str, torch.Tensor], num_steps: int) -> None:
        """Back to what `state_tensors` or `exact_tensors` gave after `num_steps` steps. `PeerFault` where names, shapes or types
        are not those of this optimiser."""
        self.reset()
        self.num_steps = num_steps
        self._rule.prepare(num_steps if tensors else 0)
        expected = self._rule.tensors()
        if set(tensors) != set(expected):
            raise PeerFault(f"moments: {sorted(tensors)} given, {sorted(expected)} expected")
        for name, value in tensors.items():
            own = expected[name]
            committed = torch.bfloat16 if self._rule.is_rounded else own.dtype
            if value.shape != own.shape or value.dtype not in (own.dtype, committed):
                raise PeerFault(f"moments: {name} is {value.dtype} {tuple(value.shape)}")
            own.copy_(value)

    def moments(self) -> dict[str, torch.Tensor]:
        """The moments as numbers, fp32: to measure how far two states are apart."""
        if isinstance(self._rule, AdamW8bit):
            return self._rule.as_numbers()
        return dict(self._rule.tensors())


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
