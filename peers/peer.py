"""The process of one peer: `python -m peers.peer join|seed DIRECTORY`, started by `peers.supervisor`.

It builds the parts, joins them and ends cleanly on SIGTERM within seconds. Exit status 0: left as asked;
`EXIT_USER_ERROR`: it said in one line what its owner has to mend; anything else: start it again.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from incentives.ledger import Ledger
from swarm.averaging.machine import RoundMachine, RunRules
from swarm.averaging.network import SwarmNetwork
from swarm.averaging.wire import pack, unpack
from swarm.checkpoint.content import Content

from incentives.errors import IncentivesError
from peers.accounting import Accounting
from peers.config import PeerConfig, load_peer_config
from peers.directory import PeerDirectory, write_json
from peers.errors import ConfigError, PeerError, StartError
from peers.eventlog import EventLog
from peers.identity import Identity, open_identity
from peers.invite import Invite
from peers.runs import RunDirectory, bind_run
from peers.supervisor import EXIT_USER_ERROR, die_with_parent
from swarm import events
from swarm.averaging.driver import Driver
from swarm.averaging.parts import PartStore
from swarm.averaging.records import FLAG_REDUCES, FLAG_VOTES, Account, Signed
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig
from swarm.errors import RetryError, SwarmError
from swarm.models import FlatModel, build_model
from swarm.tasks import CausalLMTask
from swarm.train import Trainer

log = logging.getLogger(__name__)
STATUS_SECONDS = 0.5


class Peer:
    """One peer from start to end. `run()` returns when it was asked to stop or has reached its last epoch."""

    def __init__(self, mode: str, directory: PeerDirectory, quiet: bool) -> None:
        self.mode, self.directory, self.quiet = mode, directory, quiet
        self.config: PeerConfig = load_peer_config(directory.config)
        self.identity: Identity = open_identity(directory)
        self.eventlog = EventLog(directory.events)
        self.stopping = asyncio.Event()
        self.status: dict[str, Any] = {
            "mode": mode,
            "epoch": 0,
            "pid": os.getpid(),
            "account": "0x" + self.identity.account.hex(),
        }
        self.loop: asyncio.AbstractEventLoop | None = None
        self.accounting: Accounting | None = None
        self.driver: Driver | None = None
        self.trainer: Trainer | None = None
        self._evaluating: set[asyncio.Task[None]] = set()

    # -- events -------------------------------------------------------------------------------------------------------
    def emit(self, event: events.Event) -> None:
        """Called from any thread."""
        self.eventlog.write(event)
        if self.accounting is not None:
            self.accounting.on_event(event)
        if isinstance(event, events.UnitDone):
            self.status["train_loss"] = event.loss
            self.status["inner_steps"] = event.inner_steps
        elif isinstance(event, events.Certified):
            self.status["epoch"] = event.certificate.epoch
            self.status["root"] = "0x" + event.certificate.next_root.hex()
            last = self.config.stop_after_epoch
            if last and event.certificate.epoch >= last and self.loop is not None:
                self.loop.call_soon_threadsafe(self.stopping.set)
        elif isinstance(event, events.Evaluated):
            self.status["held_out_loss"] = event.loss
        elif isinstance(event, events.Ready):
            self.status["epoch"] = event.epoch

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stopping.set)
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            last = 0.0
            while not self.stopping.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), STATUS_SECONDS)
                self._check_health()
                if time.monotonic() - last > STATUS_SECONDS:
                    last = time.monotonic()
                    self._write_status()
            await self._leave()
        self._write_status()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        directory, config = self.directory, self.config
        torch.set_num_threads(config.threads)
        run: RunConfig
        network = await SwarmNetwork.open(
            identity_path=directory.identity,
            host=config.host,
            port=config.port,
            announce=config.announce,
            client_mode=config.client_mode,
            initial_peers=() if self.mode == "seed" else Invite.decode(directory.invite.read_text()).binding.bootstrap,
            startup_timeout_seconds=config.startup_timeout_seconds,
        )
        stack.push_async_callback(network.close)
        if self.mode == "seed":
            link = json.loads((directory.root / "seed.json").read_text())
            invite = bind_run(
                RunDirectory(Path(link["run"])),
                Path(link["keystore"]),
                Path(link["password_file"]),
                founders=(self.identity.account,),
                bootstrap=network.addresses(),
            )
            directory.invite.write_text(invite.encode() + "\n")
        else:
            invite = Invite.decode(directory.invite.read_text())
        run = invite.config
        store = BlockStore(directory.blocks, config.blocks_quota_bytes)
        if self.mode == "seed":
            RunDirectory(Path(link["run"])).fill(store)
        notary = self.identity.notary(invite.binding.domain(), directory)
        stack.callback(notary.journal.close)
        ledger = Ledger(directory.ledger)
        stack.callback(ledger.close)
        self.accounting = Accounting(notary, ledger, run.witnesses, self._publish_receipt)
        flags = 0 if self.mode == "seed" else FLAG_VOTES | (0 if config.client_mode else FLAG_REDUCES)
        content = Content(store, network, config.join_timeout_seconds)
        parts = PartStore(directory.root / "contributions")
        network.serve(parts.get, store.get)
        rules = RunRules.of(run, invite.binding.founders)
        machine = RoundMachine(notary, rules)
        if self.mode == "join":
            self.trainer = await self._make_trainer(run, notary.account, content, network, invite)
            stack.callback(lambda: self.trainer and self.trainer.stop(8.0))
        self.driver = Driver(
            run,
            notary,
            machine,
            network,
            content.anchors(run),
            parts,
            self.trainer,
            self.emit,
            self.accounting.on_receipt,
            flags,
        )
        stack.push_async_callback(self.driver.close)
        await network.join(
            run.run_id, notary, flags, self.driver.on_message, self.driver.on_part, lambda: self._backlog(ledger)
        )
        await self.driver.start([unpack(data) for data in self._backlog(ledger)])
        if self.trainer is not None:
            self.trainer.start()
        self._evaluator = await self._make_evaluator(run, content) if self.mode == "seed" else None
        self._ledger = ledger

    def _backlog(self, ledger: Ledger) -> list[bytes]:
        return [pack(signed) for signed in ledger.signed_records()]

    def _publish_receipt(self, signed: Signed) -> None:
        if self.loop is not None and self.driver is not None:
            network = self.driver.network
            self.loop.call_soon_threadsafe(network.publish, pack(signed))

    async def _make_trainer(
        self, run: RunConfig, account: Account, content: Content, network: SwarmNetwork, invite: Invite
    ) -> Trainer:
        await content.fetch_data(run, self.directory.data)
        model = FlatModel(build_model(run))
        task = CausalLMTask(run, self.directory.data)
        return Trainer(
            run, account, model, task, self.directory.snapshot, self.emit, snapshot_seconds=self.config.snapshot_seconds
        )

    async def _make_evaluator(self, run: RunConfig, content: Content) -> Any:
        raise StartError("not yet")

    def _check_health(self) -> None:
        if self.trainer is not None and self.trainer.failure is not None:
            raise StartError(f"training failed: {self.trainer.failure}")

    def _write_status(self) -> None:
        if self.driver is not None:
            numbers = self.driver.statistics()
            self.status.update(
                peers=numbers.linked,
                attempt=numbers.attempt,
                swarm_units=numbers.swarm_units,
                faults=numbers.faults,
                time=time.time(),
            )
            if self.driver.anchor is not None and not self.directory.ready.exists():
                write_json(
                    self.directory.ready, {"pid": os.getpid(), "account": self.status["account"], "time": time.time()}
                )
        with contextlib.suppress(OSError):
            write_json(self.directory.status, self.status)

    async def _leave(self) -> None:
        if self.trainer is not None:
            await asyncio.to_thread(self.trainer.stop, 8.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="one peer; started by sparehive join or sparehive seed")
    parser.add_argument("mode", choices=("join", "seed"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()
    die_with_parent()
    directory = PeerDirectory(arguments.directory)
    try:
        with directory.locked():
            directory.ready.unlink(missing_ok=True)
            logging.basicConfig(
                filename=directory.root / "peer.log",
                level=logging.INFO,
                format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            )
            asyncio.run(Peer(arguments.mode, directory, arguments.quiet).run())
    except (PeerError, SwarmError, IncentivesError) as error:
        logging.getLogger(__name__).error("%s", error)
        print(f"sparehive: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1 if isinstance(error, RetryError) else EXIT_USER_ERROR)
    except OSError as error:
        print(f"sparehive: {error.filename or arguments.directory}: {error.strerror}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


if __name__ == "__main__":
    main()


__all__ = ["ConfigError", "Peer", "main"]
