"""Calls that somebody else signs and sends: a wallet of several owners, a key that is on no machine of ours. No web3 here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from incentives.keys import to_checksum


@dataclass(frozen=True, slots=True)
class Call:
    """What is to be sent, by whom it may be: `sender` None: anybody. `value`: wei."""

    what: str  # the function
    to: bytes
    data: bytes
    sender: bytes | None
    value: int = 0

    def json_value(self) -> dict[str, str | None]:
        return {
            "what": self.what,
            "from": None if self.sender is None else to_checksum(self.sender),
            "to": to_checksum(self.to),
            "value": str(self.value),
            "data": "0x" + self.data.hex(),
        }

    def line(self) -> str:
        """For people."""
        sender = "by anybody" if self.sender is None else f"from {to_checksum(self.sender)}"
        return f"{self.what} to {to_checksum(self.to)}, {sender}, value {self.value}, data 0x{self.data.hex()}"


def safe_batch(chain_id: int, calls: Sequence[Call], name: str, safe: bytes | None) -> dict[str, Any]:
    """The file that the Transaction Builder of a Safe takes: all of it is sent as one transaction, in this order."""
    return {
        "version": "1.0",
        "chainId": str(chain_id),
        "createdAt": time.time_ns() // 1_000_000,
        "meta": {
            "name": name,
            "description": ", ".join(call.what for call in calls),
            "txBuilderVersion": "1.16.5",
            "createdFromSafeAddress": "" if safe is None else to_checksum(safe),
            "createdFromOwnerAddress": "",
        },
        "transactions": [
            {
                "to": to_checksum(call.to),
                "value": str(call.value),
                "data": "0x" + call.data.hex(),
                "contractMethod": None,
                "contractInputsValues": None,
            }
            for call in calls
        ],
    }


__all__ = ["Call", "safe_batch"]
