"""Inner steps against plain torch and bitsandbytes on separate parameters; and what a boundary does to their state."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from swarm.errors import InputError, PeerFault
from swarm.matrices import Matrix
from swarm.optim.inner import CommittedState, InnerOptimizer

SIZE = 10_000


@dataclass
class Config:
    optimizer: str
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip_norm: float = 1.0


def gradients(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(SIZE, generator=generator) * 0.1 for _ in range(count)]


def reference(optimizer: str, parameter: torch.nn.Parameter) -> Any:
    if optimizer == "adamw":
        return torch.optim.AdamW([parameter], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1, foreach=False)
    if optimizer == "sgd":
        return torch.optim.SGD([parameter], lr=1e-2, weight_decay=0.1)
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit([parameter], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)


def stepped(optimizer: str, count: int) -> tuple[torch.Tensor, InnerOptimizer]:
    flat = torch.linspace(-1, 1, SIZE)
    inner = InnerOptimizer(Config(optimizer), flat, MATRICES)
    for grad in gradients(count):
        inner.step(grad.clone(), 1e-2)
    return flat, inner


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "sgd"])
def test_steps_equal_those_of_the_library_with_its_clip(optimizer: str) -> None:
    flat, inner = stepped(optimizer, 6)
    theirs = torch.nn.Parameter(torch.linspace(-1, 1, SIZE))
    other = reference(optimizer, theirs)
    for grad in gradients(6):
        theirs.grad = grad.clone()
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        other.step()
    torch.testing.assert_close(flat, theirs.detach(), rtol=1e-6, atol=2e-6)
    assert inner.num_steps == 6


def test_8_bit_adamw_keeps_its_moments_in_bytes_and_stays_near_32_bit() -> None:
    eight, inner = stepped("adamw8bit", 20)
    exact, _ = stepped("adamw", 20)
    tensors = inner.state_tensors()
    assert tensors["state1"].dtype == tensors["state2"].dtype == torch.uint8
    assert sum(t.numel() * t.element_size() for t in tensors.values()) < 2.1 * SIZE
    start = torch.linspace(-1, 1, SIZE)
    assert float((eight - exact).norm() / (exact - start).norm()) < 0.2


MATRICES = (Matrix(100, 30, 50), Matrix(2000, 40, 20))


def orthogonalised(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The iterations in double precision, on the singular values alone: the quintic is odd, so it leaves the vectors be."""
    u, values, v = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    return np.asarray(u @ np.diag(values) @ v)


def test_muon_steps_its_matrices_and_leaves_the_rest_to_adamw() -> None:
    flat, rest = torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE)
    inner, adamw = InnerOptimizer(Config("muon"), flat, MATRICES), InnerOptimizer(Config("adamw"), rest)
    expected = [flat[m.where].double().numpy().reshape(m.rows, m.columns) for m in MATRICES]
    averages = [np.zeros_like(each) for each in expected]
    for grad in gradients(6):
        clipped = (grad * min(1.0, 1.0 / (float(grad.norm()) + 1e-6))).double().numpy()
        inner.step(grad.clone(), 1e-2)
        adamw.step(grad.clone(), 1e-2)
        for index, m in enumerate(MATRICES):
            own = clipped[m.where].reshape(m.rows, m.columns)
            averages[index] = 0.95 * averages[index] + 0.05 * own
            moved = orthogonalised(0.05 * own + 0.95 * averages[index]) * 0.2 * max(m.rows, m.columns) ** 0.5
            expected[index] = expected[index] * (1 - 1e-2 * 0.1) - 1e-2 * moved
    for m, wanted in zip(MATRICES, expected, strict=True):
        np.testing.assert_allclose(flat[m.where].numpy().reshape(m.rows, m.columns), wanted, rtol=0, atol=2e-5)
        rest[m.where] = flat[m.where]
    assert torch.equal(flat, rest)


def test_muon_moves_matrices_as_torchs_own_does() -> None:
    """Which iterates in bf16: some per cent apart, step by step."""
    matrix = MATRICES[0]
    flat = torch.linspace(-1, 1, SIZE)
    theirs = torch.nn.Parameter(flat[matrix.where].reshape(30, 50).clone())
    before = theirs.detach().clone()
    other = torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    inner = InnerOptimizer(Config("muon", clip_norm=1e9), flat, MATRICES)
    for grad in gradients(6):
        theirs.grad = grad[matrix.where].reshape(30, 50).clone()
        inner.step(grad.clone(), 1e-2)
        other.step()
    ours = flat[matrix.where].reshape(30, 50) - before
    assert float((ours - (theirs.detach() - before)).norm() / ours.norm()) < 0.03


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "muon", "sgd"])
def test_training_goes_on_from_the_committed_state_as_from_the_live_one(optimizer: str) -> None:
    """At a boundary the peer goes on with what it commits: whoever loads that takes the same steps, bit for bit."""
    flat, inner = stepped(optimizer, 5)
    committed = inner.round_state()
    copy = flat.clone()
    other = InnerOptimizer(Config(optimizer), copy, MATRICES)
    other.load_state_tensors({name: value.clone() for name, value in committed.items()}, inner.num_steps)
    for grad in gradients(4):
        inner.step(grad.clone(), 1e-2)
        other.step(grad.clone(), 1e-2)
    assert torch.equal(flat, copy)
    assert other.num_steps == inner.num_steps
    for name, value in inner.state_tensors().items():
        assert torch.equal(value, other.state_tensors()[name])


def test_without_rounding_at_the_boundary_an_auditor_would_go_another_way() -> None:
    flat, inner = stepped("adamw", 5)
    copy = flat.clone()
    other = InnerOptimizer(Config("adamw"), copy)
    other.load_state_tensors(inner.state_tensors(), inner.num_steps)  # bf16, while the peer keeps fp32
    for grad in gradients(4):
        inner.step(grad.clone(), 1e-2)
        other.step(grad.clone(), 1e-2)
    assert not torch.equal(flat, copy)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_moments_as_numbers_are_those_of_the_optimiser(optimizer: str) -> None:
    _, inner = stepped(optimizer, 3)
    _, exact = stepped("adamw", 3)
    for ours, theirs in zip(inner.moments().values(), exact.moments().values(), strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.05


def test_the_hash_of_a_state_covers_each_of_its_parts() -> None:
    state = CommittedState({"a": torch.zeros(4), "b": torch.ones(4)}, torch.zeros(4).half(), 3)
    others = [
        CommittedState({"a": torch.zeros(4), "b": torch.zeros(4)}, state.residual, 3),
        CommittedState({"b": torch.zeros(4), "a": torch.ones(4)}, state.residual, 3),
        CommittedState({"a": torch.zeros(4), "c": torch.ones(4)}, state.residual, 3),
        CommittedState(state.tensors, torch.ones(4).half(), 3),
        CommittedState(state.tensors, state.residual, 4),
        CommittedState({"a": torch.zeros(4)}, state.residual, 3),
    ]
    assert len({x.hash() for x in [state, *others]}) == 7
    assert CommittedState({"b": torch.ones(4), "a": torch.zeros(4)}, state.residual, 3).hash() == state.hash()


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"exp_avg": torch.zeros(SIZE)},
        {"exp_avg": torch.zeros(SIZE), "exp_avg_sq": torch.zeros(SIZE - 1)},
        {"exp_avg": torch.zeros(SIZE), "exp_avg_sq": torch.zeros(SIZE, dtype=torch.float64)},
        {"exp_avg": torch.zeros(SIZE), "exp_avg_sq": torch.zeros(SIZE), "step": torch.zeros(1)},
    ],
)
def test_a_state_of_another_shape_is_refused(tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(PeerFault, match="moments"):
        InnerOptimizer(Config("adamw"), torch.zeros(SIZE)).load_state_tensors(tensors, 1)


def test_an_unknown_optimiser_is_named() -> None:
    with pytest.raises(InputError, match=r"inner\.optimizer = 'lion'"):
        InnerOptimizer(Config("lion"), torch.zeros(4))


@pytest.mark.parametrize("more", [0, 1000, 5000])
def test_8_bits_in_pieces_are_those_of_the_whole(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside bitsandbytes' own on one parameter: the same weights and state, bit for bit."""
    from bitsandbytes.optim.adamw import AdamW8bit

    from swarm.optim import inner as inner_module

    monkeypatch.setattr(inner_module, "EIGHT_BIT_PIECE", 1 << 14)
    size, generator = (3 << 14) + more, torch.Generator().manual_seed(1)

    class Plain:
        optimizer, betas, weight_decay, clip_norm = "adamw8bit", (0.9, 0.95), 0.1, 1e9

    flat = torch.randn(size, generator=generator)
    theirs = torch.nn.Parameter(flat.clone())
    other = AdamW8bit([theirs], lr=0.0, weight_decay=0.1, min_8bit_size=4096, betas=(0.9, 0.95), eps=1e-8)
    ours = InnerOptimizer(Plain(), flat)
    for _ in range(4):
        grad = torch.randn(size, generator=generator)
        theirs.grad = grad.clone()
        ours.step(grad, 1e-3)
        other.param_groups[0]["lr"] = 1e-3
        other.step()
    assert torch.equal(flat, theirs.detach())
    state = other.state[theirs]
    assert {name: value.shape for name, value in ours.exact_tensors().items()} == {
        name: value.shape for name, value in state.items() if isinstance(value, torch.Tensor) and "qmap" not in name
    }
    assert all(torch.equal(value, state[name]) for name, value in ours.exact_tensors().items())
