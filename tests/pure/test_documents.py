"""Documents and citations lead somewhere: every section that is cited, every path that is named, and lines that can be read."""

import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "docs" / "protocol.md"
SUFFIXES = (".py", ".md", ".sol", ".mjs", ".js", ".c", ".toml", ".ipynb", ".json")
MAX_LINE, MAX_DECISION_LINES = 140, 60
# "protocol §3.6", "[protocol](protocol.md) §7.1", "protocol §3.5–6, §9"
_SECTION = r"§(\d+(?:\.\d+)?)(?:–(\d+))?"
_CITED = re.compile(rf"\bprotocol(?:\]\([^)]*protocol\.md\))?[\s#/*]+({_SECTION}(?:,?[\s#/*]+(?:and\s+)?{_SECTION})*)")
_OUTSIDE = re.compile(
    r"\bPROTOCOL(?:\.md)? ?§|\b(?:DESIGN|STYLE|BRIEF)(?:\.md)? ?§|\b(?:DESIGN|STYLE|PROTOCOL)\.md\b|\.\./shared\b"
)
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*\.(?:py|mjs|sol|ipynb|c)")
_MODULE = re.compile(r"(?:swarm|incentives|peers|tests|benchmarks|docs)(?:\.\w+)+")


@cache
def tracked() -> tuple[str, ...]:
    """The repository's files, relative to its root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    return tuple(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def texts() -> Iterator[tuple[str, str]]:
    for name in tracked():
        if (
            name.endswith(SUFFIXES)
            and not name.endswith("package-lock.json")
            and name != "tests/pure/test_documents.py"
        ):
            yield name, (ROOT / name).read_text(encoding="utf-8")


def documents() -> Iterator[tuple[str, str]]:
    for name, text in texts():
        if name.endswith(".md"):
            yield name, text


def sections_of(citation: str) -> list[str]:
    """ "§3.5–6, §9" → 3.5, 3.6, 9"""
    found = []
    for first, last in re.findall(_SECTION, citation):
        found.append(first)
        if last:
            chapter, _, begin = first.rpartition(".")
            numbers = range(int(begin) + 1, int(last) + 1)
            found += [f"{chapter}.{n}" if chapter else str(n) for n in numbers]
    return found


def headings() -> set[str]:
    found = re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", PROTOCOL.read_text(encoding="utf-8"), re.M)
    assert len(found) == len(set(found)), "a section's number is given twice"
    return set(found)


def test_a_range_of_sections_names_each() -> None:
    assert sections_of("§3.5–6, §9") == ["3.5", "3.6", "9"]
    assert sections_of("§3–5") == ["3", "4", "5"]


def test_every_cited_section_of_the_protocol_exists() -> None:
    there, cited, missing = headings(), set(), []
    for name, text in texts():
        found = [sections_of(m[1]) for m in _CITED.finditer(text)]
        if name == "docs/protocol.md":
            found = [sections_of(m[0]) for m in re.finditer(_SECTION, text)]
        for section in {section for sections in found for section in sections}:
            cited.add(section)
            if section not in there:
                missing.append(f"{name}: protocol §{section}")
    assert missing == []
    assert {"1.2", "2.2", "3.6", "4.6", "5.1", "7.2", "8.5", "9"} <= cited, "citations are not found any more"


def test_nothing_else_is_cited_by_section() -> None:
    """A § without its document, or of one that is not in the repository, leads nowhere."""
    astray = []
    for name, text in texts():
        if name == "docs/protocol.md":
            continue
        left = _CITED.sub("", text)
        astray += [f"{name}: {m[0]}" for m in _OUTSIDE.finditer(left)]
        astray += [f"{name}: …{left[max(0, m.start() - 30) : m.end()]}" for m in re.finditer(_SECTION, left)]
    assert astray == []


def test_links_stay_within_the_repository() -> None:
    for name, text in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith(("http://", "https://", "#")):
                path = (ROOT / name).parent / target.partition("#")[0]
                assert Path(os.path.normpath(path)).is_relative_to(ROOT), f"{name}: {target}"


def is_there(span: str) -> bool:
    """Whether a file, folder or module that a document names is one of the repository's; True for what names none."""
    path = span.partition("::")[0].rstrip("/")
    if _MODULE.fullmatch(path) and not _FILE.fullmatch(path):
        parts = path.split(".")
        for count in range(len(parts), 1, -1):
            at = ROOT.joinpath(*parts[:count])
            module = at.with_suffix(".py") if at.with_suffix(".py").is_file() else at / "__init__.py"
            if module.is_file() or at.is_dir():
                rest = parts[count:]
                return not rest or (module.is_file() and rest[0] in module.read_text(encoding="utf-8"))
        return False
    if _FILE.fullmatch(path):
        return any(name == path or name.endswith("/" + path) for name in tracked())
    top = {name.split("/")[0] for name in tracked() if "/" in name}
    if re.fullmatch(r"[\w.-]+(?:/[\w.-]+)+", path) and path.split("/")[0] in top:
        return (ROOT / path).exists()
    return True


@pytest.mark.parametrize("span", ["swarm/nothing/here", "nothing.py", "swarm.nothing", "swarm/consensus/nothing.py"])
def test_what_is_not_there_is_found(span: str) -> None:
    assert not is_there(span)


def test_files_that_documents_name_exist() -> None:
    """The log tells of what was there on its day."""
    missing = [
        f"{name}: {span}"
        for name, text in documents()
        if name != "docs/log.md"
        for span in _CODE.findall(text)
        if not is_there(span)
    ]
    assert missing == []


def test_lines_of_documents_can_be_read() -> None:
    """Rows of tables and links cannot be broken."""
    long = []
    for name, text in documents():
        for number, line in enumerate(text.splitlines(), 1):
            if len(re.sub(r"\]\([^)]*\)", "]", line)) > MAX_LINE and not line.lstrip().startswith("|"):
                long.append(f"{name}:{number}: {len(line)}")
    assert long == []


def test_a_decision_is_a_page() -> None:
    pages = {name: len(text.splitlines()) for name, text in documents() if name.startswith("docs/decisions/0")}
    assert len(pages) >= 9
    assert {name: lines for name, lines in pages.items() if lines > MAX_DECISION_LINES} == {}
