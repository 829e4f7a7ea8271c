"""The invite: RunConfig and the organiser's signed RunBinding in one line of text (PROTOCOL §2)."""

import base64
import binascii
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coincurve import PrivateKey
from pydantic_core import from_json

from incentives import records
from incentives.errors import IncentivesError
from peers.errors import ConfigError
from swarm.config import RunConfig
from swarm.errors import InputError
from swarm.hashing import canonical_json

PREFIX = "sparehive1:"
MAX_TEXT = 64 * 1024
MAX_JSON = 256 * 1024


@dataclass(frozen=True)
class RunBinding:
    """Which chain pays for a run, who seats its first electorate and where to find it."""

    run_id: bytes
    chain_id: int
    settlement: bytes
    founders: tuple[bytes, ...]
    bootstrap: tuple[str, ...]

    def domain(self) -> records.Domain:
        """The EIP-712 domain of every record of this run; zeros for a run without a chain."""
        return records.Domain(self.chain_id, self.settlement)

    def digest(self) -> bytes:
        return records.digest(self.domain(), "RunBinding", asdict(self))


@dataclass(frozen=True)
class Invite:
    config: RunConfig
    binding: RunBinding
    organiser: bytes
    signature: bytes

    @classmethod
    def make(cls, config: RunConfig, binding: RunBinding, organiser_key: PrivateKey) -> "Invite":
        digest = binding.digest()
        signature = records.sign(organiser_key, digest)
        return cls(config, binding, records.recover(digest, signature), signature)

    def encode(self) -> str:
        binding = self.binding
        value = {
            "config": self.config.model_dump(mode="json"),
            "binding": {
                "chain_id": binding.chain_id,
                "settlement": binding.settlement.hex(),
                "founders": [f.hex() for f in binding.founders],
                "bootstrap": list(binding.bootstrap),
            },
            "signature": self.signature.hex(),
        }
        return PREFIX + base64.urlsafe_b64encode(zlib.compress(canonical_json(value), 9)).decode()

    @classmethod
    def decode(cls, text: str) -> "Invite":
        """From the text itself or the path of a file that holds it. ConfigError says what is wrong."""
        text = text.strip()
        if not text.startswith(PREFIX):
            if not _is_file(text):
                raise ConfigError("invite", text[:60], f"is neither an invite ({PREFIX}…) nor a file that holds one")
            return cls.of_file(Path(text))
        return cls._parse(text)

    @classmethod
    def of_file(cls, path: Path) -> "Invite":
        """From the file that holds it. ConfigError says what is wrong."""
        with open(path, "rb") as stream:
            data = stream.read(MAX_TEXT + 2)
        try:
            return cls._parse(data.decode().strip())
        except UnicodeDecodeError:
            raise ConfigError("invite", str(path), "is no text: it must hold an invite; copy it whole") from None

    @classmethod
    def _parse(cls, text: str) -> "Invite":
        if not text.startswith(PREFIX) or len(text) > MAX_TEXT:
            raise ConfigError(
                "invite", text[:60], f"must begin with {PREFIX} and be at most {MAX_TEXT} characters; copy it whole"
            )
        try:
            inflate = zlib.decompressobj()
            raw = inflate.decompress(base64.urlsafe_b64decode(text[len(PREFIX) :]), MAX_JSON)
            value: dict[str, Any] = from_json(raw)  # bounds the depth, which json.loads does not
            part = value["binding"]
            signature = bytes.fromhex(value["signature"])
            config = RunConfig.model_validate(value["config"])
            binding = RunBinding(
                config.run_id,
                int(part["chain_id"]),
                bytes.fromhex(part["settlement"]),
                tuple(bytes.fromhex(f) for f in part["founders"]),
                tuple(str(a) for a in part["bootstrap"]),
            )
            organiser = records.recover(binding.digest(), signature)
        except InputError as error:
            raise ConfigError("invite", text[:40] + "…", str(error)) from None
        except (ValueError, KeyError, TypeError, zlib.error, binascii.Error, IncentivesError) as error:
            raise ConfigError("invite", text[:40] + "…", f"cannot be read ({error}); copy it whole") from None
        return cls(config, binding, organiser, signature)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # longer than a name can be
        return False
