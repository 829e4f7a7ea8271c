"""The tables of docs/protocol.md say what the code has: types, leaves, kinds on the wire, frames, streams, constants."""

import importlib
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from incentives import records
from incentives.commitments import CONTRIBUTOR_TYPES
from incentives.tables import CertificateRow, PayoutRow, ReceiptRow
from swarm.records.types import Record, Signed
from swarm.records.wire import pack
from swarm.transport import bulk, catalogue, dialback, links, node
from swarm.transport.link import Kind

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def section(number: str) -> str:
    """The text below the heading of a section, as far as the next heading."""
    return re.split(r"^#{2,3} ", TEXT.split(f"\n{'#' * (2 + number.count('.'))} {number}", 1)[1], flags=re.M)[0]


def rows(number: str) -> list[list[str]]:
    """Cells of all rows of tables in a section, headings left out."""
    lines = [line for line in section(number).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        row
        for i, row in enumerate(cells)
        if not set(row[0]) <= {"-"} and not (i + 1 < len(cells) and set(cells[i + 1][0]) <= {"-"})
    ]


def test_it_has_the_types_of_all_records() -> None:
    told = {row[0]: row[1] for row in rows("2.2")}
    assert told.pop("CertificateId") == "as RoundCertificate, without attempt"
    head = "bytes32 runId, uint64 epoch, uint32 attempt, bytes32 prevCertificate"
    assert head in " ".join(section("2.2").split())
    expected = {kind: members.replace(",", ", ") for kind, members in records.TYPES.items() if kind != "CertificateId"}
    assert {kind: re.sub(r"^R(?=$|,)", head, members) for kind, members in told.items()} == expected
    assert records.TYPES["CertificateId"] == records.TYPES["RoundCertificate"].replace("uint32 attempt,", "")


def test_it_has_the_types_of_all_leaves() -> None:
    told = {
        int(row[0]): re.findall(r"(?:^|, )(u?int\d+|bytes32|address)\b", row[2])
        for row in rows("2.4")
        if row[0].isdigit()
    }
    expected = {row.KIND: list(row.TYPES) for row in (CertificateRow, ReceiptRow, PayoutRow)}
    assert {kind: types for kind, types in told.items() if kind <= 3} == expected
    assert told[4] == list(CONTRIBUTOR_TYPES[1:])
    assert told[5] == ["uint32", "uint32", "bytes32", "uint64"]


def test_it_has_the_kinds_of_messages_and_frames() -> None:
    told = re.findall(r"\b(\d+)\s+([A-Z]\w+)", section("2.5").split("- record:")[0])
    assert {name: int(number) for number, name in told} == {t.__name__: kind_byte(t) for t in get_args(Record)}
    frames = {int(row[0]): row[1] for row in rows("11.2") if row[0].isdigit()}
    assert frames == {int(kind): kind.name for kind in Kind}
    named = set(re.findall(r"`(/sparehive/[a-z]+/\d)`", section("11.1")))
    assert named == {links.PROTOCOL, bulk.GET, bulk.PUSH, dialback.PROTOCOL, node.HERE, catalogue.PROTOCOL}


def test_its_gas_is_that_of_the_snapshot() -> None:
    measured = re.findall(
        r"^ *(\d+)  ", (ROOT / "incentives" / "contracts" / "gas.txt").read_text(encoding="utf-8"), re.M
    )
    told = [number.replace(",", "") for number in re.findall(r"\b\d+,\d{3}\b", section("8.7"))]
    assert len(told) >= 4 and set(told) <= set(measured)


def kind_byte(type_: type[Any]) -> int:
    """The first byte of a message with such a record."""
    empty = {f.name: 0 if f.type in (int, "int") else bytes(20 if f.name == "peer" else 32) for f in fields(type_)}
    return pack(Signed(type_(**empty), bytes(20), bytes(65)))[0]


CONSTANTS = [
    (name, value, row[2])
    for row in rows("13")
    for name, value in zip(row[0].split(", "), row[1].split(", "), strict=True)
]


@pytest.mark.parametrize(("name", "value", "module"), CONSTANTS)
def test_it_has_the_constants(name: str, value: str, module: str) -> None:
    assert repr(getattr(importlib.import_module(module), name)) == value


def test_each_constant_that_it_names_is_in_its_table() -> None:
    """But for words in capitals that are none."""
    named = set(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b", TEXT.split("## 13.")[0])) - {"CAPITALS"}
    assert named - {name for name, _, _ in CONSTANTS} == set()
