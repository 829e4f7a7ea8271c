"""Where a run's contracts are, and what its invite says of who may sign. All of it is proved by the settlement's address."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from incentives.amounts import Unit
from incentives.chain.deployment import Deployment
from incentives.chain.nodes import Nodes
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import RunState
from incentives.chain.token import TokenContract
from incentives.copies import Copies
from incentives.errors import InputError, TamperedError
from incentives.keys import key_account, parse_address, to_checksum
from incentives.shelf import Shelf
from peers.cli.options import NamedSettlement, note
from peers.directory import PeerDirectory
from peers.errors import ConfigError, PeerError
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from incentives.chain.node import Chain
    from incentives.closing import PayRules


@dataclass(frozen=True)
class Place:
    """Where a run's money is. `deployment`, read from `path`, is None where only an address (or an invite) was given."""

    settlement: bytes
    chain_id: int | None
    deployment: Deployment | None = None
    path: Path = Path()
    of_storage: bool = False  # the run's pool for storing

    def connect(self, rpc: Nodes) -> "Chain":
        """UsageError where nobody has said which chain it is: the node is not asked that."""
        from incentives.chain.node import Chain  # web3 takes half a second: only who talks to a node pays it

        if self.chain_id is None:
            raise click.UsageError("--settlement needs --chain-id, or the run's --invite: a node could name any chain")
        return Chain.connect(rpc, self.chain_id, source=str(self.path) if self.deployment else "", tell=note)

    def state(self, chain: "Chain", *, finalised: bool = False) -> RunState:
        """What the contract says, found to be that of a Settlement with the terms that its address is the hash of."""
        return SettlementContract(chain, self.settlement).state(finalised=finalised)

    def unit(self, chain: "Chain", state: RunState) -> Unit:
        """What amounts of the run's token are shown and read in. TamperedError where the node says otherwise than when it was deployed:
        an amount that is given in tokens would be another one."""
        found = TokenContract(chain, state.token).unit(block=state.block)
        noted = self.deployment.unit if self.deployment is not None else None
        if noted is not None and noted != found:
            raise TamperedError(
                f"--rpc shows amounts of {to_checksum(state.token)} as {found.shown(10**18)} for 10^18 base units, {self.path} as "
                f"{noted.shown(10**18)}: ask another node; if this one is right, its token has changed: mend token_symbol and "
                "token_decimals there"
            )
        return found


def find_place(
    run: Path | None,
    settlement: NamedSettlement | None = None,
    directory: Path | None = None,
    invite: str | None = None,
    of_storage: bool = False,
) -> Place:
    """From --run, else --settlement, else --invite, else the peer in --dir: its invite, or the ledger that it has signed for. InputError
    where an invite is given and pays elsewhere. `of_storage`: where the same run pays for storing; ConfigError where it does not."""
    found = _find(run, settlement, directory, invite)
    if found.chain_id is None and invite is None and hot_account(directory) is not None:
        own = _find(None, None, directory, None)
        found = own if own.settlement == found.settlement else found
    if invite is not None:
        from peers.invite import Invite

        domain = Invite.decode(invite).binding.domain()
        if domain.verifying_contract != found.settlement or found.chain_id not in (None, domain.chain_id):
            raise InputError(
                "--invite",
                f"of settlement {to_checksum(domain.verifying_contract)} on chain {domain.chain_id}",
                f"is not for {to_checksum(found.settlement)}: give the invite of that run, or leave it out",
            )
        found = replace(found, chain_id=domain.chain_id)
    return _for_storage(found, run, directory, invite) if of_storage else found


def _for_storage(found: Place, run: Path | None, directory: Path | None, invite: str | None) -> Place:
    """The run's other pool. Its terms follow from those of the run and from its run.toml, which a directory or an invite has."""
    from peers.invite import Invite
    from peers.runs import RunDirectory
    from peers.storage import storage_terms

    own = None if directory is None else PeerDirectory(directory).invite
    terms = None
    if found.deployment is not None and run is not None and run.is_dir() and RunDirectory(run).toml.is_file():
        terms = storage_terms(found.deployment.terms, RunDirectory(run).load())
    elif invite is not None or (own is not None and own.is_file()):
        said = Invite.decode(invite) if invite is not None else Invite.of_file(own or Path())
        if said.binding.domain().verifying_contract == found.settlement:
            terms = said.storage_terms()
    if terms is None:
        raise click.UsageError(
            "--storage needs what the run's run.toml says: give --run DIRECTORY (not its chain.json alone), --invite or --dir of the run"
        )
    return replace(found, settlement=terms.settlement, of_storage=True)


def _find(run: Path | None, settlement: NamedSettlement | None, directory: Path | None, invite: str | None) -> Place:
    if run is not None:
        path = run / "chain.json" if run.is_dir() else run
        deployment = Deployment.read(path)
        if run.is_dir():
            _check_same_run(run, deployment)
        return Place(deployment.settlement, deployment.chain_id, deployment, path)
    if settlement is not None:
        return Place(parse_address(settlement.text), settlement.chain_id)
    if invite is not None:
        from peers.invite import Invite

        domain = Invite.decode(invite).binding.domain()
    elif directory is not None and PeerDirectory(directory).invite.is_file():
        from peers.invite import Invite

        domain = Invite.of_file(PeerDirectory(directory).invite).binding.domain()
    elif directory is not None and PeerDirectory(directory).ledger.is_file():
        from incentives.ledger import Ledger

        with Ledger.read(PeerDirectory(directory).ledger) as ledger:
            domain = ledger.domain
    elif directory is not None:
        raise InputError("--dir", str(directory), "is no peer's directory: it holds neither an invite nor a ledger")
    else:
        raise click.UsageError("--run, --settlement, --invite or --dir is needed, to know where the contracts are")
    if domain.chain_id == 0:
        where = ("--dir", str(directory)) if invite is None else ("--invite", invite[:40])
        raise InputError(*where, "its run has no chain: nothing is paid in it")
    return Place(domain.verifying_contract, domain.chain_id)


def _check_same_run(run: Path, deployment: Deployment) -> None:
    """ConfigError where chain.json is of another run than the run.toml beside it: money would go to that one. A run.toml that is not
    there or cannot be read says nothing here."""
    from peers.runs import RunDirectory

    try:
        config = RunDirectory(run).load()
    except (SwarmError, ConfigError):
        return
    RunDirectory(run).check_deployed(config, deployment)


def read_rules(invite: str | None, directory: Path | None, of_storage: bool = False) -> "PayRules | None":
    """Who may sign, from --invite or the invite of the peer in --dir; None where neither is there. `of_storage`: for what is stored."""
    from peers.invite import Invite

    if invite is not None:
        found = Invite.decode(invite)
    elif directory is not None and PeerDirectory(directory).invite.is_file():
        found = Invite.of_file(PeerDirectory(directory).invite)
    else:
        return None
    return found.pay_rules(of_storage)


def copies_of(
    chain: "Chain",
    settlement: bytes,
    tables: Shelf,
    directory: Path | None,
    invite: str | None = None,
    of_storage: bool = False,
) -> Copies:
    """Where tables are looked for: at --tables; what is lost there in the ledger of the peer in --dir, and at the URL on chain."""

    def own() -> "tuple[Path, PayRules] | None":
        if directory is None or not PeerDirectory(directory).ledger.exists():
            return None
        try:
            rules = read_rules(invite, directory, of_storage)
        except PeerError as error:
            raise InputError("--dir", str(directory), f"its ledger was not asked: {error}") from None
        return None if rules is None else (PeerDirectory(directory).ledger, rules)

    return Copies(tables, SettlementContract(chain, settlement), own, note)


def hot_account(directory: Path | None) -> bytes | None:
    """What the peer in --dir signs with; its password is not needed."""
    if directory is None or not PeerDirectory(directory).hot_key.exists():
        return None
    return key_account(PeerDirectory(directory).hot_key)
