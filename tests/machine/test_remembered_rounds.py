"""What a peer has signed in a round binds it, however many branches others have made since."""

from dataclasses import replace

from swarm.consensus.heard import Heard
from swarm.consensus.lineage import Lineage
from swarm.consensus.round import MAX_STRANGE_ROUNDS, Rounds
from swarm.records.types import ZERO_HASH, RoundCertificate
from tests.machine.world import RUN, CheapNotary, account, digest


def test_a_lock_from_before_a_restart_outlives_a_thousand_strange_branches() -> None:
    lineage = Lineage(RUN, digest("initial"), (account(1),))
    root = lineage[ZERO_HASH]
    for number in range(1000):  # branches that hold: anybody can make those
        identity = digest("branch", number)
        lineage.entries[identity] = replace(root, id=identity)
    rounds = Rounds(lineage, Heard(CheapNotary(account(1)), lineage, 2, 16))
    mine, lock = digest("branch", 0), digest("lock")
    certificate = RoundCertificate(RUN, 2, 3, 0, mine, ZERO_HASH, ZERO_HASH, ZERO_HASH, 1, 1, 1, ZERO_HASH, ZERO_HASH)
    rounds.remember(certificate, lock)
    for number in range(1000):
        rounds.after(digest("branch", number))
    followed = rounds.follow(mine, ZERO_HASH)
    assert (followed.lock, followed.lock_attempt) == (lock, 3)
    for number in range(1, 2 * MAX_STRANGE_ROUNDS):
        rounds.after(digest("branch", number))
    assert rounds.after(mine) is followed
