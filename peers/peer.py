"""The process of one peer: `python -m peers.peer join|seed DIRECTORY`, started by `peers.supervisor`.

It has its parts assembled (`peers.assembly`), watches over them and ends cleanly on SIGTERM within seconds; its exit statuses are
in `peers.leaving`.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import torch

from incentives.errors import IncentivesError, StorageError
from peers.advice import Advice, Circumstances, Patience, advise, of_problems
from peers.assembly import Assembled, Reactions, Role, Seed, Volunteer, Wiring, assemble, begin, join_run
from peers.beside import Beside
from peers.config import PeerConfig, load_peer_config
from peers.counting import Counting
from peers.descriptors import take_standard_descriptors
from peers.directory import PeerDirectory, write_json
from peers.errors import PeerError, StartError
from peers.eventlog import EventLog
from peers.finishing import Finishing
from peers.identity import Identity, open_identity
from peers.invite import Invite
from peers.keeping import open_quota
from peers.lateness import Lateness
from peers.laying_in import bring_base, here
from peers.leaving import CLOSE_SECONDS, LEAVE_SECONDS, TRAINER_SECONDS, end_within, say_why
from peers.listening import open_network
from peers.logs import log_to, print_nothing
from peers.lookout import Lookout, nodes_of
from peers.payee import read_payee
from peers.remembering import forgot
from peers.status import PeerStatus
from peers.supervisor import die_with_parent
from swarm import events
from swarm.budget import DiskQuota
from swarm.cancelling import cancel_all
from swarm.checkpoint.bases import BaseFolder
from swarm.checkpoint.leaves import store_leaves
from swarm.data.records import OpenLeaves
from swarm.device import failed_card
from swarm.errors import DiskError, ForgottenSignature, InputError, RetryError, SwarmError
from swarm.network import SwarmNetwork
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES, ZERO_HASH
from swarm.tasks import Task, open_task
from swarm.train import Trainer
from swarm.transport.door import Door
from swarm.transport.reach import Reach

log = logging.getLogger(__name__)
STATUS_SECONDS = 0.5
QUOTA_SECONDS = 10.0  # how often the directory is measured
CONNECTING_SECONDS, SELF_SECONDS = 3.0, 2.0
REACH_WAIT_SECONDS = 10.0
RECEIPT_SECONDS = 3.0  # that a leaver waits for the witnesses of its last receipt


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
        self.status = PeerStatus(mode=mode, pid=os.getpid(), account="0x" + self.identity.account.hex())
        self.lateness = Lateness()
        self.counting = Counting(directory, self.status)
        self.finishing = Finishing(directory, self.config, self.status, self.has_been_ready)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.made: Assembled | None = None
        self.lookout: Lookout | None = None
        self.gateway = Beside("peers.offering", directory, directory.gateway, is_wanted=bool(self.config.gateway))
        self.ipfs = Beside("peers.ipfs_node", directory, directory.ipfs, is_wanted=bool(self.config.ipfs))
        self._self_silent: tuple[str, ...] = ()
        self._patience = Patience()
        self._looking: asyncio.Task[int] | None = None
        self._quota: DiskQuota | None = None
        self._looked_at = 0.0
        self._evaluating: asyncio.Task[None] | None = None
        self._task: Task | None = None  # of a seed, which has time to evaluate
        self._evaluated = b""

    def stop_after(self, epoch: int | None) -> None:
        """Leave when this epoch is certified. None: when peer.toml says so, if that was not reached by an earlier start already."""
        self.last_epoch = self.config.stop_after_epoch if epoch is None else epoch
        self._is_asked_once = epoch is not None

    def _forget_a_reached_end(self, made: Assembled) -> None:
        tip = made.books.tip()
        certificate = None if tip is None else made.books.certificate(tip)
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
        self.lateness.on_event(event)
        if self.made is not None:
            self.made.archive.on_event(event)
            self.made.accounting.on_event(event)
            if self.made.storage is not None:
                self.made.storage.on_event(event)
        status = self.status
        if isinstance(event, events.UnitDone):
            self.finishing.has_worked = True
            status.train_loss, status.units = event.loss, event.unit + 1
            if self.made is not None:
                self._soon(self.made.driver.unit_done)
        elif isinstance(event, events.Certified):
            status.epoch, status.root = event.certificate.epoch, "0x" + event.certificate.next_root.hex()
            last = self.last_epoch
            if last and event.certificate.epoch >= last:
                self._soon(self.end, f"epoch {last} is certified, after which it was to stop")
        elif isinstance(event, events.Evaluated):
            status.held_out_loss = event.loss
        elif isinstance(event, events.Ready):
            self.has_been_ready = True
            assert self.made is not None
            status.epoch, status.phase = event.epoch, self.finishing.phase(self.made)

    def _soon(self, call: Callable[..., None], *arguments: object) -> None:
        """In the loop's thread, from any; nothing once the peer has ended."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # closed: the training thread may outlive it
                self.loop.call_soon_threadsafe(call, *arguments)

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.end, f"stopped by {number.name}")
        async with contextlib.AsyncExitStack() as stack:
            try:
                if await self._unless_stopped(self._start(stack)):
                    await self._work()
                end_within(await self._leave(), status=self.finishing.exit_status)
            except Exception as error:
                end_within(CLOSE_SECONDS, error, self.has_been_ready)
                raise
        log.info("ended: %s", self.ended)
        self.status.ended = self.ended
        self._write_status()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether `work` was done; given up where the owner stops first. A start may wait for minutes, for a peer that answers."""
        doing, asked = asyncio.create_task(work), asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait((doing, asked), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                end_within(LEAVE_SECONDS)
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
            self._look_at_the_disk()
            self._evaluate_anchor()
            self._look_at_the_end()
            self.gateway.look()
            self.ipfs.look()
            if time.monotonic() - last > STATUS_SECONDS:
                last = time.monotonic()
                self._write_status()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        torch.set_num_threads(self.config.threads)
        role: Role = Seed(self.directory, self.identity.account) if self.mode == "seed" else Volunteer(self.directory)
        bootstrap = role.bootstrap()
        if isinstance(role, Volunteer):
            role.base = await self._bring_base(stack, bootstrap)
        self._enter("connecting")
        self.network = await open_network(self.directory, self.config, bootstrap, self.network_type)
        stack.push_async_callback(self.network.close)
        if self.mode == "seed":
            self._self_silent = await self._silent_here(self.network)
        wiring = Wiring(self.emit, self._on_fetch, self.trainer_type)
        self.made = made = await assemble(stack, self.directory, self.config, self.identity, role, self.network, wiring)
        self.status.device = str(made.model.device)
        self._forget_a_reached_end(made)
        self.lookout = Lookout(self.directory, nodes_of(self.config, made.invite), self.config.watch_seconds)
        stack.callback(self.lookout.close)
        stack.callback(self.gateway.close)
        stack.callback(self.ipfs.close)
        reactions = Reactions(made, self._on_reach)
        door = Door(
            made.run.run_id,
            self.identity.account,
            made.run.admission.stamp_seconds,
            self.directory.stamp,
            reactions.has_worked,
        )
        if self.mode != "seed":  # which the invite names
            seconds = made.run.admission.stamp_seconds
            await door.make(lambda share: self._on_stamp(seconds, share))
            self._enter("connecting")
        await join_run(made, self.directory, self.config, self.identity, role, reactions, door)
        stack.push_async_callback(self.network.close)  # before driver and ledger: nothing more is heard then
        await self._begin(stack, made, role, (*bootstrap, *self.config.peers))

    async def _bring_base(self, stack: contextlib.AsyncExitStack, bootstrap: tuple[str, ...]) -> BaseFolder | None:
        """The model that the run starts from, if it starts from one, out of the cache or from the others."""
        invite = Invite.of_file(self.directory.invite)
        base = invite.config.task.model.published()
        if base is None:
            return None
        self._enter("reading the base")
        found = await here(base, self.config)
        if found is not None:
            return found
        self._enter("connecting")
        self.network = network = await open_network(self.directory, self.config, bootstrap, self.network_type)
        telling = asyncio.create_task(self._tell_while_connecting())
        stack.push_async_callback(cancel_all, [telling])
        seconds = invite.config.admission.stamp_seconds
        door = Door(invite.config.run_id, self.identity.account, seconds, self.directory.stamp)
        try:
            await door.make(lambda share: self._on_stamp(seconds, share))
            arguments = (network, invite, self.config, self.identity, door, self.directory.known)
            return await bring_base(*arguments, lambda received: self._on_fetch("the base", received, base.size))
        except DiskError:
            raise
        except RetryError as error:
            raise self._why_not_joined(error, (*bootstrap, *self.config.peers)) from None
        finally:
            await cancel_all([telling])
            await network.close()

    async def _begin(self, stack: contextlib.AsyncExitStack, made: Assembled, role: Role, tried: Sequence[str]) -> None:
        task = None
        if await self._fetch_text(stack, made, role, tried):
            self._enter("reading the data")
            leaves = _leaves(made)
            task = await asyncio.to_thread(
                open_task, made.run, role.text(), micro_batch=self.config.micro_batch, leaves=leaves
            )
            if made.trainer is not None and made.cache is not None:
                made.trainer.has_data = made.cache.is_ready
                made.cache.start()
        if made.trainer is None:
            self._task = task
        elif task is not None:
            await self.network.wait_for_reach(
                REACH_WAIT_SECONDS
            )  # so that its first word on what it does is the right one
        await begin(made, task, self.directory.events)

    async def _fetch_text(
        self, stack: contextlib.AsyncExitStack, made: Assembled, role: Role, tried: Sequence[str]
    ) -> bool:
        """False: it is not needed, as the run turned out to have ended before this peer came."""
        telling = asyncio.create_task(self._tell_while_connecting())
        stack.push_async_callback(cancel_all, [telling])
        fetching = asyncio.create_task(made.content.fetch_data(made.run.task.data, role.text()))
        stack.push_async_callback(cancel_all, [fetching])
        try:
            while not fetching.done() and not self.finishing.is_late(made):
                await asyncio.wait((fetching,), timeout=STATUS_SECONDS)
            if not fetching.done():
                await cancel_all([fetching])
                await made.content.fetch_for_export(made.run.task.data)
            else:
                await fetching
        except DiskError:
            raise
        except RetryError as error:
            raise self._why_not_joined(error, tried) from None
        telling.cancel()
        return not fetching.cancelled()

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
        if self.mode != "seed" and self.made is not None:
            flags = FLAG_VOTES | (FLAG_REDUCES if reach.is_reachable else 0)
            self.made.driver.declare(flags)
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

    def _enter(self, phase: str, received: int = 0, total: int = 0) -> None:
        """Tells whoever watches what the peer is at; bytes while it fetches."""
        status = self.status
        status.phase, status.received_bytes, status.total_bytes, status.time = phase, received, total, time.time()
        status.write(self.directory.status)

    async def _tell_while_connecting(self) -> None:
        """Nobody should have to wait minutes to hear that the seed does not answer."""
        while True:
            await asyncio.sleep(CONNECTING_SECONDS)
            problems = {} if self.network.linked() else self.network.problems()
            said = tuple(of_problems(problems))
            if said != self.status.advice:
                self.status.advice = said
                self._enter(self.status.phase)

    def _on_stamp(self, seconds: float, share: float) -> None:
        """Strangers that come without one are not heard; `share` of it is made."""
        self._enter(f"making a stamp of about {seconds:g} s of work", round(share * 100), 100)

    def _on_fetch(self, what: str, received: int, total: int) -> None:
        if not self.status.is_at_work:
            self._enter(f"fetching {what}", received, total)

    def _evaluate_anchor(self) -> None:
        """A seed has time: held-out loss of the newest anchor, beside everything else (a large model takes longer than a leaver
        has)."""
        if self._evaluating is not None and self._evaluating.done():
            self._evaluating.result()
            self._evaluating = None
        made, task = self.made, self._task
        if made is None or task is None or self._evaluating is not None:
            return
        anchor, tip, epoch = made.driver.anchor, made.driver.tip, made.machine.epoch - 1
        if anchor is None or tip == self._evaluated:
            return
        self._evaluated = tip

        def work() -> float:
            made.model.flat.copy_(anchor.parameters)
            return task.evaluate(made.model)

        async def evaluate() -> None:
            self.emit(events.Evaluated(epoch, await asyncio.to_thread(work)))

        self._evaluating = asyncio.create_task(evaluate())

    def _look_at_the_disk(self) -> None:
        """Beside the loop: it walks through all files, and may remove some."""
        made, looking = self.made, self._looking
        if looking is not None and looking.done():
            looking.result()
        is_due = time.monotonic() - self._looked_at >= QUOTA_SECONDS
        if made is not None and is_due and (looking is None or looking.done()):
            self._looked_at = time.monotonic()
            if self._quota is None:
                self._quota = open_quota(
                    self.directory, self.config, made.budget, made.content, made.archive, made.cache
                )
            self._looking = asyncio.create_task(asyncio.to_thread(self._quota.look))

    def _look_at_the_end(self) -> None:
        assert self.made is not None
        why = self.finishing.look(self.made, time.monotonic(), self._evaluating is not None, self.emit)
        if why:
            self.end(why)

    def _check_health(self) -> None:
        """Raises where a part has failed: RetryError where a start anew may help."""
        assert self.made is not None
        trainer, driver, network = self.made.trainer, self.made.driver, self.network
        if trainer is not None and trainer.failure is not None:
            if why := failed_card(trainer.failure):
                raise StartError(f"device = {self.made.model.device}: {why}")
            if isinstance(trainer.failure, InputError):  # micro_batch is too large
                raise StartError(str(trainer.failure))
            raise RetryError(f"training failed: {trainer.failure}")
        failure = driver.failure or self.made.gate.failure or self.made.books.failure
        if self.made.cache is not None:
            failure = failure or self.made.cache.failure
        if isinstance(failure, DiskError | StorageError):
            raise StartError(str(failure))
        if isinstance(failure, ForgottenSignature):
            raise StartError(forgot(self.directory.journal, self.identity.account, f"others show {failure}"))
        if failure is not None:
            raise RetryError(f"a task of the round failed: {failure!r}; see peer.log")
        if network.failure is not None:
            raise RetryError(f"a task of the network failed: {network.failure!r}; see peer.log")
        if not network.node.is_alive:
            raise RetryError(network.node.failure or "the p2p daemon has died")
        limit, problem = self.config.join_timeout_seconds, driver.follower.problem
        if driver.follower.waiting_seconds() > limit:
            raise RetryError(
                f"no live peer handed out the run's state within join_timeout_seconds = {limit:.0f}"
                + (f" ({problem})" if problem else "")
            )

    def _write_status(self) -> None:
        status, made = self.status, self.made
        if self.lookout is not None:
            watch = self.lookout.look()
            status.warning, status.watched_time = watch.warning, watch.time or None
        if made is not None:
            numbers, network = made.driver.statistics(), self.network
            status.peers, status.present = numbers.linked, len(network.present())
            status.addresses = network.told_addresses()
            status.reachable = network.reach.is_reachable if network.reach.is_known else None
            status.advice = tuple(self._advice(made))
            if made.is_paid_run and self.mode == "join":
                payee = read_payee(self.directory)
                status.named_wallet, status.binding, status.pay = payee.named, payee.state, payee.line()
            status.attempt, status.swarm_units, status.faults = numbers.attempt, numbers.swarm_units, numbers.faults
            status.sent_bytes, status.time = network.sent_bytes(), time.time()
            status.disk_written_bytes = made.budget.look()
            if made.trainer is not None:
                self.counting.look(made, self._missing_seats(made))
                for name, value in dataclasses.asdict(made.trainer.statistics()).items():
                    setattr(status, name, value)
                status.compute_seconds = round(made.trainer.compute_seconds, 3)
            if made.driver.anchor is not None and not self.directory.ready.exists():
                write_json(self.directory.ready, {"pid": status.pid, "account": status.account, "time": status.time})
        status.write(self.directory.status)

    def _advice(self, made: Assembled) -> list[Advice]:
        network, reach = self.network, self.network.reach
        seeding, training = self.mode == "seed", made.driver.training()
        now = Circumstances(
            is_seed=seeding,
            is_client=self.config.client_mode,
            is_paid_run=made.is_paid_run,
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
            other_swarms={a: "0x" + founder.hex() for a, founder in network.other_swarms().items()},
            problems=network.problems(),
            daemon_silent_seconds=network.node.silent_seconds,
            has_node=self.lookout is not None and self.lookout.has_node,
            node_silence="" if self.lookout is None else self.lookout.silence(),
            has_ended=made.machine.has_ended,
            missed_rounds=self.lateness.missed,
            contribute_seconds=made.run.rounds.contribute_seconds,
            missing_seats=self._missing_seats(made),
            is_disk_quota_reached=made.budget.is_full,
            lacks_room_to_keep=made.archive.lacks_room,
            waits_for_data_seconds=0.0 if made.trainer is None else made.trainer.waits_for_data_seconds(),
            smaller_pieces=0 if made.trainer is None else made.trainer.smaller_pieces(),
        )
        return self._patience.lasting(advise(now), time.monotonic())

    def _missing_seats(self, made: Assembled) -> int:
        """Peers that the founders still wait for before the run's first round."""
        training = len(made.driver.training()) + (self.mode != "seed")
        has_begun = made.machine.tip != ZERO_HASH
        return 0 if has_begun else max(0, made.run.rounds.min_seated - training)

    async def _leave(self) -> float:
        """Stop training, write the snapshot, wait a moment for the last receipt; how many seconds are left for closing streams."""
        begun = time.monotonic()
        if self.made is not None:
            if self.made.trainer is not None:
                await asyncio.to_thread(self.made.trainer.stop, TRAINER_SECONDS)
            until = min(time.monotonic() + RECEIPT_SECONDS, begun + LEAVE_SECONDS - 1.0)
            while not (self.made.accounting.is_quits() and self.made.is_written()) and time.monotonic() < until:
                await asyncio.sleep(0.05)
            await self.counting.look_last()
        return max(0.5, min(CLOSE_SECONDS, LEAVE_SECONDS - (time.monotonic() - begun)))


def _leaves(made: Assembled) -> OpenLeaves:
    """Of the run's records: fetched as they are needed, or all in the store."""
    if made.cache is not None:
        return made.cache.open
    root = bytes.fromhex(made.run.task.data.root)
    return store_leaves(root, made.store, lambda digest: RetryError(f"block {digest.hex()[:12]} is missing or damaged"))


def main(peer_type: type[Peer] = Peer) -> None:
    """Entry point of the process; its arguments are those of the command line."""
    take_standard_descriptors()
    parser = argparse.ArgumentParser(description="one peer; started by sparehive join or sparehive seed")
    parser.add_argument("mode", choices=("join", "seed"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--stop-after-epoch", type=int)
    arguments = parser.parse_args()
    die_with_parent()
    directory = PeerDirectory(arguments.directory)
    print_nothing()
    peer: Peer | None = None
    try:
        directory.check()
        with directory.locked():
            directory.ready.unlink(missing_ok=True)
            log_to(directory.root / "peer.log")
            peer = peer_type(arguments.mode, directory, arguments.quiet)
            peer.stop_after(arguments.stop_after_epoch)
            asyncio.run(peer.run())
            sys.exit(peer.finishing.exit_status)
    except (PeerError, SwarmError, IncentivesError, OSError) as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(say_why(error, peer is not None and peer.has_been_ready))


if __name__ == "__main__":
    main()
