"""The house stays in order: no arrow back up, no room that is most of swarm, no long function, few private reaches of tests."""

import re
from pathlib import Path

import grimp
import pytest

from docs.house import MAX_LINES_OF_FUNCTION, PACKAGES, arrows, functions, loops, private_reaches, room_of

ROOT = Path(__file__).resolve().parents[2]
MAX_SHARE_OF_SWARM = 0.25
MAX_PRIVATE_REACHES = 10
OWN_JSON = {"peers/demo.py", "incentives/chain/agreement.py", "incentives/contracts/__init__.py"}


def test_no_arrow_leads_back_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    below = arrows(graph)
    assert "swarm.records" in below["peers"], "the imports were read"
    assert loops(below) == []


def test_no_room_is_more_than_a_quarter_of_swarm() -> None:
    lines: dict[str, int] = {}
    for path in (ROOT / "swarm").rglob("*.py"):
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        lines[room] = lines.get(room, 0) + len(path.read_text(encoding="utf-8").splitlines())
    whole = sum(lines.values())
    assert {room: number for room, number in lines.items() if number > MAX_SHARE_OF_SWARM * whole} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    found = [
        f"{name}: {lines} lines"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for lines, name in functions(path)
        if lines > MAX_LINES_OF_FUNCTION
    ]
    assert found == []


def test_tests_seldom_reach_into_what_is_private() -> None:
    reaches = [reach for path in sorted((ROOT / "tests").rglob("*.py")) for reach in private_reaches(path)]
    assert len(reaches) <= MAX_PRIVATE_REACHES, "\n".join(reaches)


def test_json_of_others_is_read_by_a_parser_that_bounds_its_depth() -> None:
    """100,000 brackets overflow the stack of `json` once something has raised the recursion limit, as an import of eth-account's does."""
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if re.search(r"\bjson\.loads?\(", path.read_text(encoding="utf-8"))
    }
    assert found <= OWN_JSON
