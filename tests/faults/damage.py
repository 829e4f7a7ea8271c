"""Everything that opens a peer's directory, without its network."""

import asyncio
import contextlib
import io
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from incentives.errors import IncentivesError
from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.belonging import check_run_of
from peers.cli import main as command_line
from peers.config import load_peer_config
from peers.directory import PeerDirectory
from peers.errors import PeerError, in_one_line
from peers.eventlog import EventLog
from peers.history import LedgerHistory
from peers.identity import open_identity
from peers.invite import Invite
from peers.netid import net_id_of
from peers.remembering import check_journal
from peers.watching import EventTail, PeerWatcher, read_events
from swarm.audit.archive import Archive
from swarm.averaging.merge import MemberState
from swarm.averaging.parts import PartStore
from swarm.checkpoint.runblocks import RunBlocks
from swarm.checkpoint.store import BlockStore
from swarm.errors import SwarmError
from swarm.optim.inner import InnerOptimizer
from swarm.records.wire import unpack
from swarm.tasks import new_model
from swarm.transport.addressbook import AddressBook


class Nobody:
    """No peer of the run is reached: what is lost here is lost."""

    async def ask(self, account: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        return {}

    def donors(self) -> list[bytes]:
        return []


def open_as_a_peer(directory: PeerDirectory) -> list[str]:
    """All that a start opens, in its order, and a first save of what is saved later; what was logged as a warning."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        _open(directory)
    finally:
        logging.getLogger().removeHandler(handler)
    return said.getvalue().splitlines()


def _open(directory: PeerDirectory) -> None:
    directory.check()
    load_peer_config(directory.config)
    with directory.locked(), contextlib.ExitStack() as stack:
        directory.ready.unlink(missing_ok=True)
        identity = open_identity(directory)
        log = EventLog(directory.events)
        stack.callback(log.close)
        invite = Invite.of_file(directory.invite)
        run, domain = invite.config, invite.binding.domain()
        check_run_of(directory, run.run_id, domain)
        store = BlockStore(directory.blocks, 1 << 30)
        journal = stack.enter_context(SigningJournal(directory.journal))
        notary = identity.notary(domain, journal)
        ledger = stack.enter_context(Ledger(directory.ledger, run_id=run.run_id, domain=domain))
        model = new_model(run)
        archive = Archive(directory.archive, run, PartStore(directory.contributions), notary.hash)
        stack.callback(archive.close)
        check_journal(directory.journal, notary, ledger, list(archive.signed()))
        book = AddressBook("me")
        book.load(directory.known)
        book.write(directory.known, book.packed())
        nobody = Nobody()
        content = RunBlocks(store, model.layout, nobody.ask, nobody.donors, 0.1, archive.pinned_roots)
        asyncio.run(content.fetch_data(run.task.data, directory.data))
        MemberState.load(directory.snapshot, model.flat, InnerOptimizer(run.inner, model.flat, model.matrices))
        for data in LedgerHistory(ledger, list).everything():
            unpack(data)
        list(notary.replay_records())
        archive.prune(0.0)
        PeerWatcher(directory).read()
        EventTail(directory.events, from_start=True).read()
        read_events(directory)
        net_id_of(directory.identity)


def command(*arguments: object) -> Callable[[PeerDirectory], list[str]]:
    """`sparehive ARGUMENTS --dir …` in this process; its stderr where it fails."""

    def run(directory: PeerDirectory) -> list[str]:
        old, err = sys.argv, io.StringIO()
        sys.argv = ["sparehive", *map(str, arguments), "--dir", str(directory.root)]
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
                command_line()
        except SystemExit as ended:
            if ended.code:
                raise SaidAndEnded(err.getvalue()) from None
        finally:
            sys.argv = old
        return []

    return run


class SaidAndEnded(Exception):
    """A command's own last line."""


def line_of(work: Callable[[PeerDirectory], list[str]], directory: PeerDirectory) -> str | None:
    """None: it went well. Else the one line that its owner reads; what would be a traceback is raised."""
    try:
        work(directory)
    except SaidAndEnded as said:
        return str(said).rstrip("\n")
    except (PeerError, SwarmError, IncentivesError, OSError) as error:
        return in_one_line(error)
    return None


@contextlib.contextmanager
def copied(directory: Path, to: Path) -> Iterator[PeerDirectory]:
    shutil.copytree(directory, to, symlinks=True)
    try:
        yield PeerDirectory(to)
    finally:
        shutil.rmtree(to)
