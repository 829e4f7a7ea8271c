"""Every text file is UTF-8 by name: under LANG=C or Latin-1 the same `run.toml` would be another run, silently."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def unnamed(source: str) -> Iterator[int]:
    """Lines of calls that open text in the encoding of whoever runs them."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if "encoding" in named or None in named:
            continue
        if name in ("read_text", "write_text"):
            if len(node.args) < (1 if name == "read_text" else 2):
                yield node.lineno
        elif name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
            of_os = isinstance(function, ast.Attribute) and getattr(function.value, "id", "") == "os" and name == "open"
            strings = [a.value for a in (*node.args, named.get("mode")) if isinstance(a, ast.Constant)]
            modes = [s for s in strings if isinstance(s, str) and s and set(s) <= set("rwxabt+")]
            reads_text = isinstance(function, ast.Name) or name == "fdopen" or bool(modes)
            if reads_text and not of_os and not any("b" in mode for mode in modes):
                yield node.lineno
        elif isinstance(named.get("text"), ast.Constant) and getattr(named["text"], "value", False) is True:
            yield node.lineno


@pytest.mark.parametrize("package", ["swarm", "incentives", "peers", "benchmarks"])
def test_encodings_are_named(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if "node_modules" not in path.parts
        for line in unnamed(path.read_text(encoding="utf-8"))
    ]
    assert found == [], 'name it: encoding="utf-8"'


def test_the_check_sees_each_kind() -> None:
    for bad in ("p.read_text()", "p.write_text(x)", "open(p)", "open(p, 'w')", "p.open('a')", "run(c, text=True)"):
        assert list(unnamed(bad)) == [1], bad
    for good in ("p.read_text('utf-8')", "p.write_text(x, encoding='utf-8')", "open(p, 'rb')", "os.open(p, 1)"):
        assert list(unnamed(good)) == [], good
