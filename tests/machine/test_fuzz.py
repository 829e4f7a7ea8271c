"""100,000 messages of every kind, through everything that takes them in: nothing raises, no timer does, all stays bounded."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from swarm.averaging.parts import PartStore
from swarm.averaging.reception import Reception
from swarm.config import RunConfig
from swarm.consensus.actions import Action, Blame, Timer
from swarm.consensus.machine import STALLS_BEFORE_FEWER
from swarm.consensus.shelf import MAX_STRANGE_BYTES
from swarm.errors import PeerFault
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES, Contribution, Progress, RoundCertificate
from swarm.records.wire import pack, unpack
from tests.machine.cheap import cheap_cryptography
from tests.machine.grammar import RECORDS, Grammar
from tests.machine.strangers import RUN, key
from tests.machine.world import World
from tests.pure.test_reception import CONFIG

MESSAGES, SEEDS, SHORT_SEEDS = 12_500, 8, 4  # 100,000 messages in all; the other seeds are `long`


@pytest.fixture(autouse=True)
def _cheap() -> Iterator[None]:
    with cheap_cryptography():
        yield


def config_of(parts: int) -> tuple[RunConfig, int]:
    """And how many values make that many parts."""
    return CONFIG, CONFIG.codec.part_values * parts


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.long if seed >= SHORT_SEEDS else ()) for seed in range(SEEDS)]
)
def test_nothing_that_anybody_says_raises(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    world = World(4 if seed % 2 else 3)
    world.seat()
    for _ in range(4):
        world.round()
    peer = world.peers[0]
    machine = peer.machine
    config, num_values = config_of(2)
    parts = PartStore(tmp_path_factory.mktemp("parts"), 1 << 20)
    reception = Reception(config, num_values, parts, peer.notary.hash)
    grammar = Grammar(seed, machine, [p.notary.account for p in world.peers], 2)
    rng, timers, kinds = grammar.rng, set[Timer](), Counter[str]()
    flags = {p.notary.account: FLAG_VOTES | FLAG_REDUCES for p in world.peers[1:]} | {key(0): 3}

    def act(actions: list[Action]) -> None:
        for action in actions:
            kinds["faults"] += isinstance(action, Blame)
            timer = getattr(action, "timer", None)
            if isinstance(timer, Timer):
                timers.add(timer)

    for number in range(MESSAGES):
        data = grammar.message()
        try:  # as `Driver.on_message`
            signed = unpack(data)
            if signed.record.run_id != RUN:
                raise PeerFault("of another run")
            if isinstance(signed.record, Contribution):
                reception.learn(signed)
        except PeerFault:
            kinds["unreadable"] += 1
            continue
        assert pack(signed) == data  # one encoding
        kinds[type(signed.record).__name__] += 1
        act(machine.receive(signed, key(rng.randrange(20))))
        assert machine.may_pass_on(signed) in (True, False)
        if isinstance(signed.record, RoundCertificate) and rng.random() < 0.05:
            grammar.hashes.append(machine.tip)
        u = rng.random()
        if u < 0.01 and timers:
            timer = rng.choice(sorted(timers, key=repr))
            timers.discard(timer)
            act(machine.timeout(timer))
        elif u < 0.013:
            act(machine.timeout(Timer("stall", machine.tip)))
        elif u < 0.02:
            act(machine.ready({a: f for a, f in flags.items() if rng.random() < 0.8}, linked=flags))
        elif u < 0.025:
            act(machine.due())
        elif u < 0.027:
            machine.current_messages()
            machine.certificates_since(rng.randrange(9))
        if number % 1000 == 0:
            assert machine.heard.sizes()["strange bytes"] <= MAX_STRANGE_BYTES
    for _ in range(STALLS_BEFORE_FEWER + 2):
        act(machine.timeout(Timer("stall", machine.tip)))
    assert {r.__name__ for r in RECORDS} <= kinds.keys()  # each of them came through
    assert kinds["faults"] < 0.9 * (MESSAGES - kinds["unreadable"])  # and much of it was none
    assert replace(Progress(RUN, 1, machine.tip, 0, 0, 0)) is not None
