"""The contracts: Solidity in src/, forge tests in test/, and what users need of them in generated/ (committed)."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """One compiled contract. `abi` as solc gives it, `bytecode` for deployment, 0x-hex; `runtime` is the code that stands
    on chain afterwards, with zeros at `immutables` (start, length), where each deployment has values of its own."""

    name: str
    compiler: str
    abi: list[dict[str, Any]]
    bytecode: str
    runtime: str
    immutables: tuple[tuple[int, int], ...]

    def is_code(self, code: bytes) -> bool:
        """Whether `code`, as found on chain, is this contract's."""
        found, own = bytearray(code), bytes.fromhex(self.runtime[2:])
        for start, length in self.immutables:
            found[start : start + length] = bytes(len(found[start : start + length]))
        return bytes(found) == own


@cache
def artifact(name: str) -> Artifact:
    """ModelLicense, PeerRegistry, SegmentTree, Settlement or TestToken, as committed; a test compares them with a fresh compilation."""
    text = resources.files("incentives.contracts").joinpath("generated", f"{name}.json").read_text(encoding="utf-8")
    value = json.loads(text)
    immutables = tuple((int(start), int(length)) for start, length in value["immutables"])
    return Artifact(value["contract"], value["compiler"], value["abi"], value["bytecode"], value["runtime"], immutables)
