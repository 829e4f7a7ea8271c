"""One process of the reference: a peer that trains with `hivemind.Optimizer` as shipped, its bootstrap DHT, or a lone trainer.

    python -m benchmarks.hivemind_peer bootstrap DIRECTORY HOST
    python -m benchmarks.hivemind_peer peer DIRECTORY HOST --run RUN --address MULTIADDR --index I --variant NAME ...
    python -m benchmarks.hivemind_peer alone DIRECTORY HOST --run RUN ...

It loads the run's initial anchor, text, model and samples through the same code as Sparehive's peers, writes ready.json, waits
for the file `go`, trains, and writes status.json four times a second until SIGTERM.
"""

import argparse
import contextlib
import os
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from peers.directory import write_json
from peers.runs import RunDirectory
from peers.supervisor import die_with_parent
from swarm.checkpoint.anchor import read_anchor
from swarm.checkpoint.store import BlockStore
from swarm.config import InnerConfig, RunConfig
from swarm.device import HOST
from swarm.optim.schedule import learning_rate
from swarm.tasks import new_model, open_task

NUM_EVALUATED = 64
WAITING = 5.0


def variant_options(name: str) -> dict[str, Any]:
    """Arguments of `hivemind.Optimizer` beyond the necessary ones."""
    from hivemind.compression import Float16Compression

    half = {"grad_compression": Float16Compression(), "state_averaging_compression": Float16Compression()}
    tuned = {"matchmaking_time": 3.0, "averaging_timeout": 30.0, **half}
    return {
        "default": {},
        "delayed": {**tuned, "delay_optimizer_step": True, "delay_grad_averaging": True},
        "local": {"use_local_updates": True, **{k: v for k, v in tuned.items() if k != "grad_compression"}},
    }[name]


class Stop:
    """Set by SIGTERM; every wait of this process looks at it."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.asked.set())

    def wait_for(self, path: Path) -> bool:
        while not path.exists():
            if self.asked.wait(0.05):
                return False
        return True


class ClippedAdamW(torch.optim.AdamW):
    """AdamW that clips the whole gradient's norm first, as the run's inner optimiser does."""

    def __init__(self, parameters: Any, config: InnerConfig) -> None:
        super().__init__(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)
        self.clip_norm = config.clip_norm

    def step(self, closure: Any = None) -> Any:
        held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(held, self.clip_norm)
        return super().step(closure)


class Plain:
    """A model with parameters of their own, in the place of `FlatModel`."""

    device = HOST

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def zero_grad(self) -> None:
        self.module.zero_grad(set_to_none=False)


def load_model(run: RunDirectory, config: RunConfig) -> Plain:
    """The run's initial anchor as an ordinary module."""
    flat = new_model(config)
    store = BlockStore(run.blocks, 1 << 40)

    def get(digest: bytes) -> bytes:
        data = store.get(digest)
        assert data is not None, "the run's directory has lost blocks of its initial anchor"
        return data

    flat.flat.copy_(read_anchor(bytes.fromhex(config.initial_root), get, flat.layout).parameters)
    for parameter in flat.module.parameters():
        parameter.data, parameter.grad = parameter.data.clone(), None
    return Plain(flat.module)


class Loop:
    """Inner steps with their rest, and the account of where the time went."""

    def __init__(self, arguments: argparse.Namespace, stop: Stop, directory: Path) -> None:
        self.arguments, self.stop, self.directory = arguments, stop, directory
        self.run = RunDirectory(arguments.run)
        self.config = self.run.load()
        self.model = load_model(self.run, self.config)
        self.task = open_task(self.config, self.run.data)
        self.steps = 0
        self.computed_seconds = self.rest_seconds = self.training_seconds = 0.0
        self.calls: list[float] = []  # seconds of each call of the optimiser in which the epoch stayed the same
        self.begun = 0.0
        self.state: dict[str, Any] = {"finished": False, "epoch": 0}

    def rate(self, epoch: float) -> float:
        """The run's learning rate over its peak, in the middle of an epoch."""
        inner, clock = self.config.inner, int((epoch + 0.5) * self.config.rounds.units_per_epoch)
        return learning_rate(clock, 1.0, inner.warmup_units, inner.total_units)

    def train(
        self, step: Callable[[], None], epoch: Callable[[], int], pause: float, until: Callable[[], bool]
    ) -> None:
        """Inner steps until `until()`; `step` is the optimiser's."""
        account = self.arguments.index.to_bytes(20, "big")
        self.begun = time.monotonic()
        while not until() and not self.stop.asked.is_set():
            unit, within = divmod(self.steps, self.config.inner.steps_per_unit)
            begun = time.monotonic()
            self.task.step(self.model, account, self.config.run_id, unit, within)
            computed = time.monotonic()
            before = epoch()
            step()
            stepped = time.monotonic()
            self.computed_seconds += computed - begun
            if epoch() == before:
                self.calls.append(stepped - computed)
            self.steps += 1
            self.state["epoch"] = epoch()
            if pause:
                self.stop.asked.wait(pause)
                self.rest_seconds += time.monotonic() - stepped
        self.training_seconds = time.monotonic() - self.begun

    def inner_seconds(self) -> float:
        """Forward, backward and the optimiser's calls, but no call in which the epoch changed, and of the others no more than
        `WAITING` times the median: beyond that it waited."""
        calls = list(self.calls)
        longest = WAITING * statistics.median(calls) if calls else 0.0
        return self.computed_seconds + sum(min(call, longest) for call in calls)

    def say(self) -> None:
        elapsed = self.training_seconds or (time.monotonic() - self.begun if self.begun else 0.0)
        self.state.update(
            inner_steps=self.steps,
            inner_seconds=self.inner_seconds(),
            rest_seconds=self.rest_seconds,
            training_seconds=elapsed,
            samples=self.steps * self.config.inner.batch_size,
            time=time.time(),
        )
        write_json(self.directory / "status.json", self.state)

    def say_on(self) -> None:
        def body() -> None:
            while True:
                self.say()
                time.sleep(0.25)

        threading.Thread(target=body, name="status", daemon=True).start()

    def loss(self) -> float:
        return self.task.evaluate(self.model, NUM_EVALUATED)


def bootstrap(arguments: argparse.Namespace, stop: Stop) -> None:
    import hivemind

    dht = hivemind.DHT(start=True, host_maddrs=[f"/ip4/{arguments.host}/tcp/0"], startup_timeout=120)
    addresses = [str(a) for a in dht.get_visible_maddrs()]
    write_json(arguments.directory / "ready.json", {"addresses": addresses})
    stop.asked.wait()
    dht.shutdown()


def alone(arguments: argparse.Namespace, stop: Stop) -> None:
    """Paced steps first, for their speed; then the rest of a peer's steps without a pause, for the loss."""
    loop = Loop(arguments, stop, arguments.directory)
    optimizer = ClippedAdamW(loop.model.module.parameters(), loop.config.inner)
    steps_per_epoch = arguments.steps // arguments.epochs

    def step() -> None:
        for group in optimizer.param_groups:
            group["lr"] = loop.config.inner.lr * loop.rate(loop.steps / steps_per_epoch - 0.5)
        optimizer.step()

    paced = min(arguments.steps, arguments.paced)
    for _ in range(2):  # the first steps are slow everywhere: memory, caches
        loop.task.step(loop.model, bytes(20), loop.config.run_id, 0, 0)
    loop.train(step, lambda: 0, arguments.pause, lambda: loop.steps >= paced)
    loop.say()
    counted = dict(loop.state)
    loop.train(step, lambda: 0, 0.0, lambda: loop.steps >= arguments.steps)
    write_json(arguments.directory / "result.json", {**counted, "loss": loop.loss(), "steps": loop.steps})


def peer(arguments: argparse.Namespace, stop: Stop) -> None:
    import hivemind

    loop = Loop(arguments, stop, arguments.directory)
    inner = loop.config.inner
    dht = hivemind.DHT(
        initial_peers=[arguments.address],
        host_maddrs=[f"/ip4/{arguments.host}/tcp/0"],
        start=True,
        startup_timeout=120,
    )
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id="bench",
        target_batch_size=loop.config.rounds.units_per_epoch * inner.steps_per_unit * inner.batch_size,
        batch_size_per_step=inner.batch_size,
        params=list(loop.model.module.parameters()),
        optimizer=lambda parameters: ClippedAdamW(parameters, inner),
        scheduler=lambda wrapped: torch.optim.lr_scheduler.LambdaLR(wrapped, loop.rate),
        client_mode=dht.client_mode,
        **variant_options(arguments.variant),
    )
    try:
        for number in (signal.SIGTERM, signal.SIGINT):  # hivemind has changed one of them
            signal.signal(number, lambda *_: stop.asked.set())
        loop.say_on()
        write_json(arguments.directory / "ready.json", {"time": time.time()})
        if not stop.wait_for(arguments.directory.parent / "go"):
            return
        loop.train(
            optimizer.step,
            lambda: int(optimizer.local_epoch),
            arguments.pause,
            lambda: optimizer.local_epoch >= arguments.epochs,
        )
        loop.state["finished"] = optimizer.local_epoch >= arguments.epochs
        loop.state["loss"] = loop.loss()
        stop.asked.wait()  # the others may still need this peer
    finally:
        with contextlib.suppress(Exception):
            optimizer.shutdown()
        dht.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("bootstrap", "peer", "alone"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("host")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--address")
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--variant", default="default")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--paced", type=int, default=30)
    parser.add_argument("--pause", type=float, default=0.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    die_with_parent()
    code = 1
    try:
        {"bootstrap": bootstrap, "alone": alone, "peer": peer}[arguments.mode](arguments, Stop())
        code = 0
    except Exception:  # the process boundary
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)  # hivemind's forked processes are joined at exit and may never end; the benchmark ends the group


if __name__ == "__main__":
    main()
