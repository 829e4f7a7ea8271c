"""Every message that docs/troubleshooting.md quotes is one that the product says, and every advice has its line there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pip

from peers import advice
from tests.terminal import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ELSEWHERE = {
    "NotBound": "incentives/contracts/src/Settlement.sol",
    "externally-managed-environment": f"{Path(pip.__file__).parent}/_internal/exceptions.py",
}
# Where those who begin make their mistakes: every error of these classes has its line.
EVERY_ERROR = {
    "peers/invite.py": {"ConfigError"},
    "peers/belonging.py": {"ConfigError"},
    "peers/creating.py": {"ConfigError"},
    "swarm/transport/addresses.py": {"InputError"},
    "incentives/keys.py": {"KeyFileError"},
}
MET = (  # what else people have read and looked for here
    "is no signing journal: ", "move it and its -wal and -shm away", "is not TOML", "is no file: move it away", "is not an IP address",
    "must be printable", "left out of the text", "cannot build the model", "not finite", "the current directory no longer exists",
    "no file modes", "WARNING: ", "fork: ", "broke a rule; see peer.log", "is not there: give the directory",
)  # fmt: skip


def quotes() -> list[str]:
    """The first column of each table."""
    return re.findall(r"^\| `([^`]+)`", PAGE, re.M)


@cache
def sources() -> tuple[tuple[Path, ast.Module], ...]:
    paths = [path for package in ("peers", "swarm", "incentives") for path in sorted((ROOT / package).rglob("*.py"))]
    return tuple((path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths)


def said(tree: ast.AST) -> Iterator[str]:
    """String literals but for docstrings, which nobody meets; `…` for each value in an f-string."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_it_quotes_what_is_said() -> None:
    everything = [text for _, tree in sources() for text in said(tree)]
    assert len(quotes()) > 40
    unknown = []
    for quote in quotes():
        if quote in ELSEWHERE:
            assert quote in (ROOT / ELSEWHERE[quote]).read_text(encoding="utf-8")
        elif not any(quote in text for text in everything):
            unknown.append(quote)
    assert unknown == []


def test_it_has_a_line_for_what_beginners_meet() -> None:
    assert [text for text in MET if not any(text in quote for quote in quotes())] == []
    lacking = []
    for path, tree in sources():
        wanted = EVERY_ERROR.get(path.relative_to(ROOT).as_posix(), set())
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in wanted):
                continue
            text = " | ".join(said(node))
            is_put_together = not any(len(part) > 25 for part in said(node))  # its words stand elsewhere
            if not is_put_together and not any(quote in text for quote in quotes()):
                lacking.append(f"{path.name}:{node.lineno}: {text}")
    assert lacking == []


def test_it_has_a_line_for_each_advice() -> None:
    """With its code behind a quote of its own text."""
    lines = {code: quote for quote, code in re.findall(r"^\| `([^`]+)` \(`([a-z-]+)`\) \|", PAGE, re.M)}
    (tree,) = (tree for path, tree in sources() if path.name == "advice.py")
    given = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Advice":
            code = node.args[0]
            name = advice.AT_ONCE if isinstance(code, ast.Name) and code.id == "AT_ONCE" else ast.literal_eval(code)
            given[name] = next(said(node.args[1]))
    assert sorted(given) == sorted(lines)
    assert [code for code, text in given.items() if lines[code] not in text] == []
