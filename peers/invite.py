"""The invite: RunConfig and the organiser's signed RunBinding in one line of text (protocol §2.6)."""

import base64
import binascii
import contextlib
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coincurve import PrivateKey
from pydantic_core import from_json

from incentives import pasted, records
from incentives.amounts import BASE_UNITS, MAX_DECIMALS, MAX_SYMBOL, Unit
from incentives.errors import IncentivesError
from peers.config import check_node
from peers.errors import ConfigError
from peers.given import given_path
from swarm.config import RunConfig
from swarm.errors import InputError
from swarm.hashing import canonical_json

if TYPE_CHECKING:
    from incentives.chain.terms import Terms
    from incentives.closing import PayRules

PREFIX = "sparehive1:"
MAX_TEXT = 4096  # that is read
SHORT_TEXT = 2000  # that is made: to be pasted into a chat
MAX_FILE = 16 * 1024  # with what a mail put around it
MAX_JSON = 64 * 1024
# zlib's preset dictionary: what nearly every invite says, so that it need not be in it. Part of the format, not to be changed.
DICTIONARY = (
    b'{"binding":{"bootstrap":["/dns4/","/ip6/","/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW","/p2p/Qm"],"chain_id":1,"founders":[""],'
    b'"settlement":""},"config":{"audit":{"anchor_every_epochs":8,"hold_seconds":3600,"rate":0.05,"tolerance":0.2},'
    b'"codec":{"average":"int8","contribution":"int4","part_values":262144},"initial_root":"",'
    b'"inner":{"batch_size":8,"betas":[0.9,0.95],"clip_norm":1,"lr":0.002,"optimizer":"adamw","steps_per_unit":5,'
    b'"total_units":100000,"warmup_units":20,"weight_decay":0.1},"name":"my-run",'
    b'"outer":{"lr":0.7,"momentum":0.7,"momentum_ramp_rounds":20},"rounds":{"average_seconds":10,"contribute_seconds":10,'
    b'"epoch_deadline_seconds":300,"max_attempts":4,"max_reducers":16,"max_units_per_contribution":64,"min_seated":2,'
    b'"recheck_share":0.1,"stall_seconds":60,"units_per_epoch":8,"vote_seconds":5},'
    b'"task":{"data":{"context":256,"held_out_fraction":0.1,"kind":"text","root":"","text":{"sha256":"","size":1500000},'
    b'"tokenizer":{"file":{"sha256":"","size":1500000},"kind":"bpe","tokens_sha256":"","vocabulary":4096}},'
    b'"tokenizer":{"kind":"bytes","vocabulary":256}},"kind":"causal_lm","model":{"family":"llama","fields":{"hidden_size":256,'
    b'"intermediate_size":1024,"num_attention_heads":8,"num_hidden_layers":6,"num_key_value_heads":8,"vocab_size":4096,'
    b'"tie_word_embeddings":true},"model":{"family":"gpt2","fields":{"n_embd":256,"n_head":8,"n_layer":6},"kind":"untrained"}},'
    b'"unit_price_amount":"1000000000000000","version":3,"witnesses":1},"signature":""}'
)


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
class PayLimits:
    """Of the settlement's terms those that neither the run nor the signer say (see `incentives.chain.terms`). `unit`: what the token said
    of itself, to show amounts where no node is asked; nothing proves it, and no amount depends on it."""

    token: bytes
    window_seconds: int
    epochs_per_day: int
    units_per_epoch: int
    amount_per_day: int
    unit: Unit = BASE_UNITS

    @classmethod
    def of_terms(cls, terms: "Terms", unit: Unit | None = None) -> "PayLimits":
        limits = (terms.window_seconds, terms.epochs_per_day, terms.units_per_epoch, terms.amount_per_day)
        return cls(terms.token, *limits, unit or BASE_UNITS)

    @classmethod
    def of(cls, value: dict[str, str]) -> "PayLimits":
        """ValueError, KeyError or TypeError where it is malformed."""
        token, window, *numbers = (value[name] for name in _LIMITS)
        decimals = int(value["decimals"]) if "decimals" in value else None
        unit = Unit.of(str(value.get("symbol", "")), decimals)
        epochs, units, amount = map(int, numbers)
        return cls(bytes.fromhex(token), int(window), epochs, units, amount, unit)

    def terms(self, config: RunConfig, organiser: bytes) -> "Terms":
        from incentives.chain.terms import Terms

        return Terms(
            self.token,
            config.run_id,
            organiser,
            config.unit_price,
            self.window_seconds,
            self.epochs_per_day,
            self.units_per_epoch,
            self.amount_per_day,
        )

    def json_value(self) -> dict[str, str]:
        numbers = (self.window_seconds, self.epochs_per_day, self.units_per_epoch, self.amount_per_day)
        said = {"symbol": self.unit.symbol} if self.unit.symbol else {}
        said |= {"decimals": str(self.unit.decimals)} if self.unit.decimals is not None else {}
        return dict(zip(_LIMITS, (self.token.hex(), *map(str, numbers)), strict=True)) | said


_LIMITS = ("token", "window_seconds", "epochs_per_day", "units_per_epoch", "amount_per_day")


@dataclass(frozen=True)
class Invite:
    config: RunConfig
    binding: RunBinding
    signer: bytes
    signature: bytes
    limits: "PayLimits | None" = None  # None: the run has no chain
    rpc: str = (
        ""  # a node that may be asked of the chain. Not signed: a lying one can hide a proposal, and take nothing
    )

    @property
    def organiser(self) -> bytes:
        """Who proposes what is paid: the signer, or the wallet that the run names beside it."""
        named = self.config.organiser
        return self.signer if named is None else bytes.fromhex(named.wallet)

    @classmethod
    def make(
        cls, config: RunConfig, binding: RunBinding, organiser_key: PrivateKey, limits: "PayLimits | None" = None
    ) -> "Invite":
        digest = binding.digest()
        signature = records.sign(organiser_key, digest)
        return cls(config, binding, records.recover(digest, signature), signature, limits)

    @property
    def terms(self) -> "Terms | None":
        """Of the settlement that pays, as the run, its organiser and `limits` make them; None: nothing is paid."""
        return None if self.limits is None else self.limits.terms(self.config, self.organiser)

    def storage_terms(self) -> "Terms | None":
        """Of the settlement that pays for storing; None: nothing is paid. ConfigError where the run has no such pool."""
        from peers.storage import storage_terms

        return None if self.terms is None else storage_terms(self.terms, self.config)

    def pay_rules(self, of_storage: bool = False) -> "PayRules":
        """What one has to know of the run to say what a ledger pays for work, or `of_storage` for storing (ConfigError: it does not)."""
        from incentives.closing import PayRules, StoragePool
        from peers.storage import storage_of, storage_rules

        pool = None
        if of_storage:
            storage_of(self.config)
            rules = storage_rules(self.config)
            assert rules is not None
            pool = StoragePool(rules, self.binding.settlement)
        return PayRules(
            self.config.run_id,
            self.config.witnesses,
            self.binding.founders,
            self.config.rounds.max_units_per_contribution,
            self.config.inner.total_units,
            pool,
        )

    @classmethod
    def short(
        cls, config: RunConfig, binding: RunBinding, organiser_key: PrivateKey, limits: "PayLimits | None" = None
    ) -> "Invite":
        """With as many of the addresses, from the first on, as leave it at most `SHORT_TEXT` characters, but one at least."""
        for count in range(len(binding.bootstrap), -1, -1):
            made = cls.make(config, replace(binding, bootstrap=binding.bootstrap[:count]), organiser_key, limits)
            if len(made.encode()) <= SHORT_TEXT or count <= 1:
                break
        return made

    def encode(self) -> str:
        binding = self.binding
        value: dict[str, Any] = {
            "config": self.config.model_dump(mode="json"),
            "binding": {
                "chain_id": binding.chain_id,
                "settlement": binding.settlement.hex(),
                "founders": [f.hex() for f in binding.founders],
                "bootstrap": list(binding.bootstrap),
            },
            "signature": self.signature.hex(),
        }
        if self.limits is not None:
            value["terms"] = self.limits.json_value()
        if self.rpc:
            value["rpc"] = self.rpc
        deflate = zlib.compressobj(9, zdict=DICTIONARY)
        packed = deflate.compress(canonical_json(value)) + deflate.flush()
        return PREFIX + base64.urlsafe_b64encode(packed).decode()

    @classmethod
    def decode(cls, text: str) -> "Invite":
        """From the text itself or the path of a file that holds it. ConfigError says what is wrong."""
        text = _found(text)
        if not text.startswith(PREFIX):
            path = _file(text)
            if path is None:
                remedy = "copy it whole, or check the path"
                shown = text if len(text) <= 110 else f"{text[:50]}…{text[-50:]}"  # of a path, the end says which file
                raise ConfigError(
                    "invite", shown, f"is neither an invite ({PREFIX}…) nor a file that holds one; {remedy}"
                )
            return cls.of_file(path)
        return cls._parse(text)

    @classmethod
    def of_file(cls, path: Path) -> "Invite":
        """From the file that holds it. ConfigError says what is wrong."""
        try:
            with open(path, "rb") as stream:
                data = stream.read(MAX_FILE)
        except FileNotFoundError:
            raise ConfigError("invite", str(path), "is missing: join with the invite again, or restore it") from None
        try:
            text = pasted.decoded(data)
            if not text.strip():
                raise ConfigError("invite", str(path), "is no text: it must hold an invite; copy it whole")
            return cls._parse(_found(text), f"invite {path}")
        except UnicodeDecodeError:
            raise ConfigError("invite", str(path), "is no text: it must hold an invite; copy it whole") from None

    @classmethod
    def _parse(cls, text: str, source: str = "invite") -> "Invite":
        if not text.startswith(PREFIX) or len(text) > MAX_TEXT:
            raise ConfigError(
                source, text[:60], f"must begin with {PREFIX} and be at most {MAX_TEXT} characters; copy it whole"
            )
        try:
            value: dict[str, Any] = from_json(_unpacked(text))  # bounds the depth, which json.loads does not
            part = value["binding"]
            signature = bytes.fromhex(value["signature"])
            config = RunConfig.parse(value["config"], "its run")
            binding = RunBinding(
                config.run_id,
                int(part["chain_id"]),
                bytes.fromhex(part["settlement"]),
                tuple(bytes.fromhex(f) for f in part["founders"]),
                tuple(str(a) for a in part["bootstrap"]),
            )
            signer = records.recover(binding.digest(), signature)
            limits = PayLimits.of(value["terms"]) if "terms" in value else None
            found = cls(config, binding, signer, signature, limits, _node_of(value))
            _check_signer(found, source, text)
        except _OtherVersion:
            raise ConfigError(
                source,
                text[:40] + "…",
                "was made by another version of Sparehive, or changed on its way: ask for a new invite",
            ) from None
        except InputError as error:
            raise ConfigError(source, text[:40] + "…", f"{error}; ask the organiser for a right one") from None
        except (ValueError, KeyError, TypeError, zlib.error, binascii.Error, IncentivesError):
            raise ConfigError(
                source,
                text[:40] + "…",
                f"cannot be read: a part is missing, or was changed on its way; copy it whole, from {PREFIX} to its end",
            ) from None
        return found


def _node_of(value: dict[str, Any]) -> str:
    """InputError where what it names is no node."""
    node = str(value.get("rpc", ""))
    try:
        return check_node(node)
    except ValueError as error:
        raise InputError("rpc", node, str(error)) from None


def _check_signer(invite: Invite, source: str, text: str) -> None:
    """ConfigError where the signer is not the organiser of the settlement that is named, nor the key that the run names for this: the
    address is the hash of all that, so that no node has to be asked."""
    named = invite.config.organiser
    if named is not None and invite.signer.hex() != named.invites:
        raise ConfigError(
            source,
            text[:40] + "…",
            f"is forged: its signer is 0x{invite.signer.hex()}, and the run's invites are signed by 0x{named.invites}; ask the organiser "
            "for the run's invite",
        )
    if invite.binding.chain_id == 0:
        return
    if invite.terms is None:
        raise _OtherVersion
    if invite.terms.settlement != invite.binding.settlement:
        raise ConfigError(
            source,
            text[:40] + "…",
            f"is forged, or made by another version of Sparehive: its organiser 0x{invite.organiser.hex()} is not that of the "
            f"settlement 0x{invite.binding.settlement.hex()} with these terms; ask the organiser for the run's invite",
        )


def anybodys_binding(
    config: RunConfig, key: PrivateKey, bootstrap: tuple[str, ...] = (), chain_id: int = 1
) -> tuple[RunConfig, RunBinding, PrivateKey, PayLimits]:
    """What an invite of the run is made of, as if `key` had deployed it with the longest of terms."""
    account = records.account_of(key)
    organiser = account
    if config.organiser is not None:
        organiser = bytes.fromhex(config.organiser.wallet)
        config = config.model_copy(update={"organiser": config.organiser.model_copy(update={"invites": account.hex()})})
    unit = Unit("\N{GREEK CAPITAL LETTER SIGMA}" * MAX_SYMBOL, MAX_DECIMALS)
    limits = PayLimits(b"\xff" * 20, (1 << 32) - 1, (1 << 64) - 1, (1 << 64) - 1, (1 << 128) - 1, unit)
    settlement = limits.terms(config, organiser).settlement
    return config, RunBinding(config.run_id, chain_id, settlement, (account,), bootstrap), key, limits


class _OtherVersion(Exception):
    """Deflated with another dictionary than this program's."""


def _unpacked(text: str) -> bytes:
    """ValueError (also as binascii.Error) or zlib.error where it is not whole."""
    packed = base64.urlsafe_b64decode(text[len(PREFIX) :])
    has_dictionary = len(packed) >= 6 and packed[1] & 0x20  # as zlib's header says, with its checksum
    if has_dictionary and packed[2:6] != zlib.adler32(DICTIONARY).to_bytes(4, "big"):
        raise _OtherVersion
    inflate = zlib.decompressobj(zdict=DICTIONARY)
    raw = inflate.decompress(packed, MAX_JSON)
    if not inflate.eof:  # its checksum comes last
        raise ValueError
    return raw


def _found(text: str) -> str:
    """The invite in what was pasted; where none is whole, what looks like one; else the text itself."""
    candidates: list[str] = []
    for candidate in pasted.words(text, PREFIX):
        if len(candidate) > MAX_TEXT and candidates:
            break
        candidates.append(candidate)
        with contextlib.suppress(ValueError, zlib.error, _OtherVersion):
            _unpacked(candidate[: MAX_TEXT + 1])
            return candidate
    return candidates[0] if candidates else text.strip()


def _file(text: str) -> Path | None:
    """The one that is named; None where there is none."""
    try:
        path = given_path(text)
        return path if path.is_file() else None
    except (OSError, ValueError):  # longer than a name can be
        return None
