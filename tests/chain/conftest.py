"""One local node per module; skipped, with the reason, only where npm never brought anvil."""

from collections.abc import Iterator

import pytest

from incentives.devchain import DevChain, find_tool


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevChain]:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    with DevChain(log=tmp_path_factory.mktemp("anvil") / "log") as chain:
        yield chain
