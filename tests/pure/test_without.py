"""The list of guards that are taken out one by one (`python -m tests.hostile.without`) fits the code of today."""

import pytest

from tests.hostile.without import GUARDS, REPOSITORY, Guard


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.what)
def test_a_guard_is_there_and_is_one(guard: Guard) -> None:
    text = (REPOSITORY / guard.path).read_text(encoding="utf-8")
    assert text.count(guard.old) == 1
    changed = text.replace(guard.old, guard.new)
    compile(changed, guard.path, "exec")
    assert all((REPOSITORY / path).exists() for path in guard.tests if path.startswith("tests/"))


def test_no_guard_is_listed_twice() -> None:
    assert len({guard.what for guard in GUARDS}) == len(GUARDS)
