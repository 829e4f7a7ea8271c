"""The process of one peer: `python -m peers.peer join|seed DIRECTORY`, started by `peers.supervisor`.

It builds the parts, joins them and ends cleanly on SIGTERM within seconds. Exit status 0: left as asked;
`EXIT_USER_ERROR`: it said in one line what its owner has to mend; anything else: start it again.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import torch
from pydantic_core import from_json

from incentives.errors import IncentivesError, StorageError
from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.accounting import Accounting
from peers.advice import Advice, Circumstances, Patience, advise, of_problems
from peers.belonging import check_run_of
from peers.config import PeerConfig, load_peer_config
from peers.descriptors import settle_descriptors
from peers.directory import PeerDirectory, keep_port, last_port, write_json
from peers.errors import ConfigError, PeerError, StartError, in_one_line
from peers.eventlog import EventLog
from peers.history import LedgerHistory
from peers.identity import Identity, open_identity, recover_account
from peers.invite import Invite
from peers.remembering import check_journal, forgot
from peers.runs import RunDirectory, bind_run, copy_blocks
from peers.supervisor import EXIT_USER_ERROR, die_with_parent
from swarm import events
from swarm.atomic import write_atomically
from swarm.audit.archive import Archive
from swarm.averaging.driver import Driver
from swarm.averaging.parts import PartStore
from swarm.averaging.reception import Reception
from swarm.cancelling import cancel_all
from swarm.checkpoint.content import Content
from swarm.checkpoint.store import BlockStore
from swarm.consensus.machine import RoundMachine, RunRules
from swarm.dht.board import BoardSettings
from swarm.errors import DiskError, ForgottenSignature, RetryError, SwarmError, printable_lines
from swarm.models import FlatModel, build_model
from swarm.network import SwarmNetwork
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES, Account, Contribution, Signed
from swarm.records.wire import pack, unpack
from swarm.tasks import CausalLMTask
from swarm.train import Trainer
from swarm.transport.reach import Reach

log = logging.getLogger(__name__)
STATUS_SECONDS = 0.5
LOG_BYTES = 16 << 20  # of peer.log, and of the one before
CONNECTING_SECONDS, SELF_SECONDS = 3.0, 2.0
REACH_WAIT_SECONDS = 10.0
RECEIPT_SECONDS = 3.0  # that a leaver waits for the witnesses of its last receipt
LEAVE_SECONDS, TRAINER_SECONDS, CLOSE_SECONDS = 9.0, 7.0, 4.0  # a leaver is given 10 s in all


class Peer:
    """One peer from start to end. `run()` returns when it was asked to stop or has reached its last epoch.

    The two types are the seam for scripted faults: a subclass may send less or something else, or end the process."""

    network_type: type[SwarmNetwork] = SwarmNetwork
    trainer_type: type[Trainer] = Trainer

    def __init__(self, mode: str, directory: PeerDirectory, quiet: bool) -> None:
        self.mode, self.directory, self.quiet = mode, directory, quiet
        self.config: PeerConfig = load_peer_config(directory.config)
        self.identity: Identity = open_identity(directory)
        self.eventlog = EventLog(directory.events)
        self.stopping = asyncio.Event()
        self._is_asked_once = False
        self.last_epoch = 0  # to leave after; 0: stay
        self.ended = ""  # why, in words
        self.has_been_ready = directory.snapshot.exists()  # now or in an earlier process
        self.status: dict[str, Any] = {
            "mode": mode,
            "phase": "starting",
            "epoch": 0,
            "pid": os.getpid(),
            "account": "0x" + self.identity.account.hex(),
        }
        self.loop: asyncio.AbstractEventLoop | None = None
        self.accounting: Accounting | None = None
        self.archive: Archive | None = None
        self.driver: Driver | None = None
        self.trainer: Trainer | None = None
        self._self_silent: tuple[str, ...] = ()
        self._is_paid_run = False
        self._patience = Patience()
        self._evaluate: tuple[CausalLMTask, FlatModel] | None = None
        self._evaluated = b""
        self._evaluating: asyncio.Task[None] | None = None

    def stop_after(self, epoch: int | None) -> None:
        """Leave when this epoch is certified. None: when peer.toml says so, if that was not reached by an earlier start already."""
        self.last_epoch = self.config.stop_after_epoch if epoch is None else epoch
        self._is_asked_once = epoch is not None

    def _forget_a_reached_end(self, ledger: Ledger) -> None:
        tip = ledger.tip()
        certificate = None if tip is None else ledger.certificate(tip)
        if not self._is_asked_once and certificate is not None and 0 < self.last_epoch <= certificate.epoch:
            log.info("peer.toml: stop_after_epoch = %d was reached by an earlier start: going on", self.last_epoch)
            self.last_epoch = 0

    def end(self, why: str) -> None:
        """The first reason counts. In the loop's thread."""
        self.ended = self.ended or why
        self.stopping.set()

    # -- events -------------------------------------------------------------------------------------------------------
    def emit(self, event: events.Event) -> None:
        """Called from any thread."""
        self.eventlog.write(event)
        if self.archive is not None:
            self.archive.on_event(event)
        if self.accounting is not None:
            self.accounting.on_event(event)
        if isinstance(event, events.UnitDone):
            self.status["train_loss"] = event.loss
            self.status["units"] = event.unit + 1
        elif isinstance(event, events.Certified):
            self.status["epoch"] = event.certificate.epoch
            self.status["root"] = "0x" + event.certificate.next_root.hex()
            last = self.last_epoch
            if last and event.certificate.epoch >= last and self.loop is not None:
                self.loop.call_soon_threadsafe(self.end, f"epoch {last} is certified, after which it was to stop")
        elif isinstance(event, events.Evaluated):
            self.status["held_out_loss"] = event.loss
        elif isinstance(event, events.Ready):
            self.status["epoch"] = event.epoch
            self.has_been_ready = True
            self.status["phase"] = "serving" if self.mode == "seed" else "training"

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.end, f"stopped by {number.name}")
        async with contextlib.AsyncExitStack() as stack:
            try:
                if await self._unless_stopped(self._start(stack)):
                    await self._work()
                _end_within(await self._leave())
            except Exception as error:
                _end_within(CLOSE_SECONDS, error, self.has_been_ready)
                raise
        log.info("ended: %s", self.ended)
        self.status["ended"] = self.ended
        self._write_status()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether `work` was done; given up where the owner stops first. A start may wait for minutes, for a peer that answers."""
        doing, asked = asyncio.create_task(work), asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait((doing, asked), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                _end_within(LEAVE_SECONDS)
                return False
            await doing
            return True
        finally:
            await cancel_all((doing, asked))

    async def _work(self) -> None:
        last = 0.0
        while not self.stopping.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(STATUS_SECONDS):
                    await self.stopping.wait()
            self._check_health()
            self._evaluate_anchor()
            if time.monotonic() - last > STATUS_SECONDS:
                last = time.monotonic()
                self._write_status()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        directory, config = self.directory, self.config
        torch.set_num_threads(config.threads)
        seeding = self.mode == "seed"
        link = _read_link(directory) if seeding else {}
        bootstrap = () if seeding else _read_invite(directory).binding.bootstrap
        self._enter("connecting")
        network = await self.network_type.open(
            directory.identity,
            host=config.host,
            port=config.port,
            preferred_port=last_port(directory),
            announce=config.announce,
            client_mode=config.client_mode,
            initial_peers=(*bootstrap, *config.peers),
            startup_timeout_seconds=config.startup_timeout_seconds,
        )
        stack.push_async_callback(network.close)
        self.network = network
        if network.node.port:
            keep_port(directory, network.node.port)
        if seeding:
            self._self_silent = await self._silent_here(network)
            made = bind_run(
                RunDirectory(Path(link["run"])),
                Path(link["keystore"]),
                Path(link["password_file"]),
                (self.identity.account,),
                network.addresses(),
            )
            check_run_of(directory, made.binding.run_id, made.binding.domain())
            write_atomically(directory.invite, made.encode().encode() + b"\n")
        invite = _read_invite(directory)
        run, domain = invite.config, invite.binding.domain()
        self._is_paid_run = invite.binding.chain_id != 0
        store = BlockStore(directory.blocks, config.blocks_quota_bytes)
        if seeding:
            await asyncio.to_thread(copy_blocks, RunDirectory(Path(link["run"])), run, store)
        journal = stack.enter_context(SigningJournal(directory.journal))
        notary = self.identity.notary(domain, journal)
        ledger = stack.enter_context(Ledger(directory.ledger, run_id=run.run_id, domain=domain))
        model = FlatModel(await asyncio.to_thread(build_model, run.model, run.data.context))
        parts = PartStore(directory.contributions)
        self.archive = archive = Archive(directory.archive, run, parts, notary.hash)
        stack.callback(archive.close)
        self._forget_a_reached_end(ledger)
        if ledger.tip() is None and len(journal):
            log.warning(
                "%s is new, or all in it was lost: certificates and receipts come back from the others",
                directory.ledger,
            )
        await asyncio.to_thread(check_journal, directory.journal, notary, ledger, list(archive.signed()))
        initial = frozenset([bytes.fromhex(run.initial_root)])
        content = Content(
            store,
            model.layout,
            network.ask,
            network.donors,
            config.join_timeout_seconds,
            lambda: initial | archive.pinned_roots(),
        )
        data_root, data_bytes = bytes.fromhex(run.data.root), run.data.size_bytes()
        anchor_bytes = 8 * model.layout.num_values()
        content.on_progress = lambda root, received: (
            self._on_fetch("data", received, data_bytes)
            if root == data_root
            else self._on_fetch("the anchor", received, anchor_bytes)
        )
        reception = Reception(run, model.layout.num_values(), parts, notary.hash)
        flags = 0 if seeding else FLAG_VOTES  # it reduces once it is known to be reachable
        rules = RunRules.of(run, invite.binding.founders, model.layout.num_values())
        machine = RoundMachine(notary, rules, reduces=False, votes=bool(flags & FLAG_VOTES))
        self.accounting = Accounting(notary, ledger, run.witnesses, self._publish, machine.certified_body)
        if not seeding:
            self.trainer = self.trainer_type(
                run,
                notary.account,
                model,
                None,
                directory.snapshot,
                self.emit,
                snapshot_seconds=config.snapshot_seconds,
                step_pause_seconds=config.step_pause_seconds,
                archive=archive,
            )
        self.driver = driver = Driver(
            run,
            notary,
            machine,
            network,
            content,
            reception,
            self.trainer,
            self.emit,
            self.accounting.on_receipt,
            flags,
        )
        stack.push_async_callback(driver.close)
        history = LedgerHistory(ledger, machine.current_messages, machine.certificates_since)
        await network.join(
            run.run_id,
            notary.account,
            flags,
            self.identity.sign_digest,
            recover_account,
            lambda digest: parts.get(digest) or store.get(digest),
            driver.on_message,
            driver.on_part,
            history,
            self._on_link,
            tip=lambda: (machine.epoch - 1, driver.tip),
            is_member=lambda account: account in machine.lineage.electorate(machine.tip),
            known_file=directory.known,
            sync_seconds=config.sync_seconds,
            presence=BoardSettings(
                config.presence_renew_seconds, config.presence_expiry_seconds, config.dht_request_seconds
            ),
            addresses=network.addresses() if seeding else (),
            on_reach=self._on_reach,
            reach_seconds=config.reach_seconds,
        )
        stack.push_async_callback(network.close)  # before driver and ledger: nothing more is heard then
        stack.push_async_callback(cancel_all, [telling := asyncio.create_task(self._tell_while_connecting())])
        try:
            await content.fetch_data(run.data, Path(link["run"]) / "data" if seeding else directory.data)
        except DiskError:
            raise
        except RetryError as error:
            raise self._why_not_joined(error, (*bootstrap, *config.peers)) from None
        telling.cancel()
        self._enter("reading the data")
        task = await asyncio.to_thread(CausalLMTask, run, Path(link["run"]) / "data" if seeding else directory.data)
        if self.trainer is not None:
            self.trainer.task = task
            self.trainer.resume(
                max(
                    (r.first_unit + r.units for r, _, _ in notary.replay_records() if isinstance(r, Contribution)),
                    default=0,
                )
            )
            await network.wait_for_reach(REACH_WAIT_SECONDS)  # so that its first word on what it does is the right one
        else:
            self._evaluate = (task, model)
        await driver.start(
            [unpack(data) for data in (*history.everything(), *history.current())],
            [(record, keep) for record, _, keep in notary.replay_records()],
        )
        if self.trainer is not None:
            self.trainer.start()

    async def _silent_here(self, network: SwarmNetwork) -> tuple[str, ...]:
        """Addresses of the invite at which not even this machine gets an answer. RetryError where none answers: what is deaf must not
        be open to others."""
        addresses = network.addresses()
        until = time.monotonic() + self.config.startup_timeout_seconds
        answered = await network.answering(addresses)
        while not answered and time.monotonic() < until:  # a busy machine may take longer than one look
            await asyncio.sleep(SELF_SECONDS)
            answered = await network.answering(addresses)
        if not answered:
            raise RetryError(
                f"this peer does not answer itself at {', '.join(addresses) or 'any address'}: is something between the p2p daemon and "
                "this process, or a firewall on this machine? See peer.log"
            )
        return tuple(a for a in addresses if a not in answered)

    def _on_reach(self, reach: Reach) -> None:
        """Linked peers have dialled back: reduce, or do not."""
        if self.mode != "seed" and self.driver is not None:
            flags = FLAG_VOTES | (FLAG_REDUCES if reach.is_reachable else 0)
            self.driver.declare(flags)
            self.network.declare(flags)

    def _why_not_joined(self, error: RetryError, addresses: Sequence[str]) -> RetryError:
        seconds = f"join_timeout_seconds = {self.config.join_timeout_seconds:.0f}"
        if self.network.linked():
            return RetryError(f"linked to the run, but nobody there had what is needed within {seconds}: {error}")
        problems = self.network.problems()
        said = "; ".join(f"{address} {problem}" for address, problem in problems.items())
        return RetryError(
            f"no peer of the run could be linked within {seconds}: {said or ', '.join(addresses) or 'no address is known'}. "
            "Ask the organiser whether the seed runs and is reachable from here"
        )

    def _on_link(self, account: Account, flags: int, up: bool) -> None:
        if self.driver is not None and not up:
            self.driver.link_lost(account)
        self.emit(events.PeerSeen(account, bool(flags & FLAG_REDUCES)) if up else events.PeerLost(account))

    def _enter(self, phase: str, received: int = 0, total: int = 0) -> None:
        """Tells whoever watches what the peer is at; bytes while it fetches."""
        self.status.update(phase=phase, received_bytes=received, total_bytes=total, time=time.time())
        with contextlib.suppress(OSError):
            write_json(self.directory.status, self.status)

    async def _tell_while_connecting(self) -> None:
        """Nobody should have to wait minutes to hear that the seed does not answer."""
        while True:
            await asyncio.sleep(CONNECTING_SECONDS)
            problems = {} if self.network.linked() else self.network.problems()
            said = [dataclasses.asdict(each) for each in of_problems(problems)]
            if said != self.status.get("advice", []):
                self.status["advice"] = said
                self._enter(self.status["phase"])

    def _on_fetch(self, what: str, received: int, total: int) -> None:
        if self.status["phase"] not in ("training", "serving"):
            self._enter(f"fetching {what}", received, total)

    def _publish(self, signed: Signed) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.network.publish, pack(signed))

    def _evaluate_anchor(self) -> None:
        """A seed has time: held-out loss of the newest anchor, beside everything else (a large model takes longer than a leaver
        has)."""
        driver = self.driver
        if self._evaluating is not None and self._evaluating.done():
            self._evaluating.result()
            self._evaluating = None
        if self._evaluate is None or driver is None or driver.anchor is None or driver.tip == self._evaluated:
            return
        if self._evaluating is not None:
            return
        task, model = self._evaluate
        self._evaluated, anchor, epoch = driver.tip, driver.anchor, driver.machine.epoch - 1

        def work() -> float:
            model.flat.copy_(anchor.parameters)
            return task.evaluate(model)

        async def evaluate() -> None:
            self.emit(events.Evaluated(epoch, await asyncio.to_thread(work)))

        self._evaluating = asyncio.create_task(evaluate())

    def _check_health(self) -> None:
        if self.trainer is not None and self.trainer.failure is not None:
            raise RetryError(f"training failed: {self.trainer.failure}")
        failure = None if self.driver is None else self.driver.failure
        if isinstance(failure, DiskError | StorageError):
            raise StartError(str(failure))
        if isinstance(failure, ForgottenSignature):
            raise StartError(forgot(self.directory.journal, self.identity.account, f"others show {failure}"))
        if self.driver is not None and self.driver.failure is not None:
            raise RetryError(f"a task of the round failed: {self.driver.failure!r}; see peer.log")
        if self.network.failure is not None:
            raise RetryError(f"a task of the network failed: {self.network.failure!r}; see peer.log")
        if not self.network.node.is_alive:
            raise RetryError(self.network.node.failure or "the p2p daemon has died")
        if self.driver is not None and self.driver.follower.waiting_seconds() > self.config.join_timeout_seconds:
            raise RetryError(
                f"no live peer handed out the run's state within join_timeout_seconds = {self.config.join_timeout_seconds:.0f}"
                + (f" ({self.driver.follower.problem})" if self.driver.follower.problem else "")
            )

    def _write_status(self) -> None:
        if self.trainer is not None:
            self.status.update(dataclasses.asdict(self.trainer.statistics()))
        if self.driver is not None:
            numbers = self.driver.statistics()
            self.status.update(
                peers=numbers.linked,
                present=len(self.network.present()),
                addresses=list(self.network.told_addresses()),
                reachable=self.network.reach.is_reachable if self.network.reach.is_known else None,
                advice=[dataclasses.asdict(each) for each in self._advice()],
                attempt=numbers.attempt,
                swarm_units=numbers.swarm_units,
                faults=numbers.faults,
                sent_bytes=self.network.sent_bytes(),
                time=time.time(),
            )
            if self.trainer is not None:
                self.status["compute_seconds"] = round(self.trainer.compute_seconds, 3)
            if self.driver.anchor is not None and not self.directory.ready.exists():
                write_json(
                    self.directory.ready, {"pid": os.getpid(), "account": self.status["account"], "time": time.time()}
                )
        with contextlib.suppress(OSError):
            write_json(self.directory.status, self.status)

    def _advice(self) -> list[Advice]:
        assert self.driver is not None
        network, reach = self.network, self.network.reach
        seeding, training = self.mode == "seed", self.driver.training()
        now = Circumstances(
            is_seed=seeding,
            is_client=self.config.client_mode,
            is_paid_run=self._is_paid_run,
            port=network.node.port,
            linked=len(network.linked()),
            others=len(training),
            witnesses=sum(bool(flags & FLAG_REDUCES) for flags in training.values()),
            is_reachable=reach.is_reachable if reach.is_known else None,
            asked=reach.asked,
            silent_addresses=tuple(a for a in network.addresses() if reach.is_known and a not in reach.addresses)
            if seeding and not reach.is_reachable
            else reach.silent,
            self_silent_addresses=self._self_silent,
            problems=network.problems(),
            daemon_silent_seconds=network.node.silent_seconds,
        )
        return self._patience.lasting(advise(now), time.monotonic())

    async def _leave(self) -> float:
        """Stop training, write the snapshot, wait a moment for the last receipt; how many seconds are left for closing streams."""
        begun = time.monotonic()
        if self.trainer is not None:
            await asyncio.to_thread(self.trainer.stop, TRAINER_SECONDS)
        until = min(time.monotonic() + RECEIPT_SECONDS, begun + LEAVE_SECONDS - 1.0)
        while self.accounting is not None and not self.accounting.is_quits() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return max(0.5, min(CLOSE_SECONDS, LEAVE_SECONDS - (time.monotonic() - begun)))


def _read_invite(directory: PeerDirectory) -> Invite:
    return Invite.of_file(directory.invite)


def _read_link(directory: PeerDirectory) -> dict[str, str]:
    try:
        link = from_json(directory.seed_link.read_bytes())
        return {name: str(link[name]) for name in ("run", "keystore", "password_file")}
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            "seed.json", str(directory.seed_link), "cannot be read; `sparehive seed RUN --dir …` writes it anew"
        ) from None


class _ForTerminals(logging.Formatter):
    """People look at a log with `cat` and `tail -f`, and strangers' words are in it."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def _say_why(error: BaseException, has_been_ready: bool) -> int:
    """One line for people (where it goes to may be on the full disk too), and the exit status that follows."""
    with contextlib.suppress(OSError):
        print(f"sparehive: {in_one_line(error)}", file=sys.stderr, flush=True)
    if not isinstance(error, PeerError | SwarmError | IncentivesError | OSError):
        return 1
    # What was well once is worth another try; who has never got in is told why, at once.
    return 1 if isinstance(error, RetryError) and has_been_ready else EXIT_USER_ERROR


def _end_within(seconds: float, error: BaseException | None = None, has_been_ready: bool = True) -> None:
    """End the process after `seconds`, whatever still waits for streams to close: journal and ledger are on disk at every
    moment, and the supervisor ends the daemon."""

    def end() -> None:
        os._exit(0 if error is None else _say_why(error, has_been_ready))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def main(peer_type: type[Peer] = Peer) -> None:
    """Entry point of the process; its arguments are those of the command line."""
    settle_descriptors()
    parser = argparse.ArgumentParser(description="one peer; started by sparehive join or sparehive seed")
    parser.add_argument("mode", choices=("join", "seed"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--stop-after-epoch", type=int)
    arguments = parser.parse_args()
    die_with_parent()
    directory = PeerDirectory(arguments.directory)
    logging.raiseExceptions, logging.lastResort = False, None  # what people are to read is printed, once
    peer: Peer | None = None
    try:
        directory.check()
        with directory.locked():
            directory.ready.unlink(missing_ok=True)
            handler = RotatingFileHandler(directory.root / "peer.log", maxBytes=LOG_BYTES, backupCount=1)
            handler.setFormatter(_ForTerminals("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            logging.basicConfig(handlers=[handler], level=logging.INFO)
            peer = peer_type(arguments.mode, directory, arguments.quiet)
            peer.stop_after(arguments.stop_after_epoch)
            asyncio.run(peer.run())
    except (PeerError, SwarmError, IncentivesError, OSError) as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(_say_why(error, peer is not None and peer.has_been_ready))


if __name__ == "__main__":
    main()
