"""How a model is named: its chain and its id on it, as 31337:0x…, so that no node has to be asked which chain is meant."""

import re
from dataclasses import dataclass

_FORM = re.compile("(?:([1-9][0-9]{0,15}):)?0x([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class ModelReference:
    """`chain_id` None: the id alone was given."""

    chain_id: int | None
    model: bytes

    @classmethod
    def parse(cls, text: str) -> "ModelReference":
        """ValueError, without the text, where it is none."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise ValueError(
                "is no model: give CHAIN:0x and 64 hexadecimal digits, as `sparehive model list` prints it"
            )
        return cls(int(found[1]) if found[1] else None, bytes.fromhex(found[2]))

    def __str__(self) -> str:
        chain = f"{self.chain_id}:" if self.chain_id is not None else ""
        return f"{chain}0x{self.model.hex()}"


__all__ = ["ModelReference"]
