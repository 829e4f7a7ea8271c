"""How many storms: a few hundred for `make test`, as many as one likes for `make test-slow`."""

import pytest

STORMS_AT_ONCE = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storms", type=int, default=300, help="of seed 1, in tests/machine/test_schedules.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storms" in metafunc.fixturenames:
        count = metafunc.config.getoption("--storms")
        starts = range(0, count, STORMS_AT_ONCE)
        chunks = [range(start, min(start + STORMS_AT_ONCE, count)) for start in starts]
        metafunc.parametrize("storms", chunks, ids=[f"{chunk.start}-{chunk.stop - 1}" for chunk in chunks])
