from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def anchors_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the newest ones, without waiting until joiners on slow lines are through."""
    monkeypatch.setattr("swarm.checkpoint.runblocks.KEEP_SECONDS", -1.0)
