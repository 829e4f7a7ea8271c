"""The contracts: Solidity in src/, forge tests in test/, and what users need of them in generated/ (committed)."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """One compiled contract. `abi` as solc gives it, `bytecode` for deployment, 0x-hex."""

    name: str
    compiler: str
    abi: list[dict[str, Any]]
    bytecode: str


@cache
def artifact(name: str) -> Artifact:
    """PeerRegistry, Settlement or TestToken, as committed; a test compares them with a fresh compilation."""
    text = resources.files("incentives.contracts").joinpath("generated", f"{name}.json").read_text()
    value = json.loads(text)
    return Artifact(value["contract"], value["compiler"], value["abi"], value["bytecode"])
