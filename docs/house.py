"""The house in figures: rooms, floors, arrows back up, the longest functions, where tests reach into what is private.

    python -m docs.house [CHECKOUT] [--all]

A room is a package of `swarm`, or one of its modules; `peers` and `incentives` are a room each. A room's floors are the longest chain of
imports inside it. Two rooms that import one another, directly or over others, are an arrow back up. `--all` lists what is only
counted otherwise. Imports that only a type checker reads do not count.
"""

import argparse
import ast
import os
import sys
from collections import namedtuple
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp

PACKAGES = ("swarm", "peers", "incentives")
MAX_LINES_OF_FUNCTION = 50


def room_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "swarm" and len(parts) > 1 else parts[0]


def floors(graph: grimp.ImportGraph, modules: set[str]) -> int:
    """Longest chain of imports inside `modules`; a loop counts as one floor."""

    @cache
    def height(module: str) -> int:
        below = graph.find_modules_directly_imported_by(module) & modules
        return 1 + max((height(m) for m in below if module not in graph.find_upstream_modules(m)), default=0)

    return max(map(height, modules))


def arrows(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """Room → rooms from which it imports."""
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        below = {room_of(m) for m in graph.find_modules_directly_imported_by(module)}
        found.setdefault(room_of(module), set()).update(below - {room_of(module), "swarm"})
    return found


def loops(below: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Pairs of rooms with an arrow between them of which each is reached from the other."""

    def reached(room: str) -> set[str]:
        seen: set[str] = set()
        waiting = [room]
        while waiting:
            new = below.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    return sorted({(min(a, b), max(a, b)) for a, rooms in below.items() for b in rooms if a in reached(b)})


def functions(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.end_lineno - node.lineno + 1, f"{path}:{node.lineno} {node.name}"


def private_reaches(path: Path) -> Iterator[str]:
    """Names with one leading underscore that a test takes from anything but itself; what the standard library or a package calls
    so is not ours to name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    own |= {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and _is_self(n)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_self(node) and node.attr not in own:
            yield f"{path}:{node.lineno} .{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{path}:{node.lineno} {alias.name}" for alias in node.names if _is_private(alias.name))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from (f"{path}:{node.lineno} {name}" for name in names if _is_private(name.split(".")[-1]))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in (*dir(os), *dir(namedtuple("T", "")))


def _is_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def main() -> None:
    parser = argparse.ArgumentParser(description="The house in figures.")
    parser.add_argument("checkout", nargs="?", type=Path, default=Path.cwd())
    parser.add_argument("--all", action="store_true", help="list long functions and private reaches")
    options = parser.parse_args()
    os.chdir(options.checkout)
    sys.path.insert(0, str(options.checkout.absolute()))
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    paths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for p in PACKAGES for path in Path(p).rglob("*.py")
    }
    lines: dict[str, list[int]] = {}
    for path, number in paths.items():
        lines.setdefault(room_of(".".join(path.with_suffix("").parts)), []).append(number)
    modules: dict[str, set[str]] = {}
    for module in graph.modules:
        modules.setdefault(room_of(module), set()).add(module)
    below = arrows(graph)
    swarm = sum(sum(each) for room, each in lines.items() if room.startswith("swarm."))
    print("| room | files | lines | of swarm | floors | stands on |\n|---|---|---|---|---|---|")
    for room in sorted(lines, key=lambda room: -sum(lines[room])):
        if room not in modules or (
            modules[room] == {room} and len(lines[room]) == 1 and not (Path(*room.split("."))).is_dir()
        ):
            continue  # a module on its own
        share = f"{sum(lines[room]) / swarm:.0%}" if room.startswith("swarm.") else ""
        stands_on = ", ".join(
            sorted(r.removeprefix("swarm.") for r in below.get(room, ()) if Path(*r.split(".")).is_dir())
        )
        print(
            f"| {room} | {len(lines[room])} | {sum(lines[room])} | {share} | {floors(graph, modules[room])} | {stands_on} |"
        )
    long = sorted((f for path in paths for f in functions(path)), reverse=True)
    reaches = [reach for path in sorted(Path("tests").rglob("*.py")) for reach in private_reaches(path)]
    print(f"\narrows back up: {len(loops(below))}  {', '.join(f'{a} and {b}' for a, b in loops(below))}")
    print(
        f"longest function: {long[0][0]} lines, {long[0][1]}; over {MAX_LINES_OF_FUNCTION}: "
        f"{sum(number > MAX_LINES_OF_FUNCTION for number, _ in long)}"
    )
    print(f"private reaches of tests: {len(reaches)}")
    if options.all:
        print(*(f"{number} {where}" for number, where in long if number > MAX_LINES_OF_FUNCTION), *reaches, sep="\n")


if __name__ == "__main__":
    main()
