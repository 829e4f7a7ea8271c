"""Fast tests first, so that a mistake shows within seconds; the order within a directory stays."""

import pytest

ORDER = ("pure", "reference", "training", "machine", "cli", "chain", "faults", "process", "notebook", "readme")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        directory = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        return ORDER.index(directory) if directory in ORDER else len(ORDER)

    items.sort(key=rank)
