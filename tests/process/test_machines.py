"""Volunteers on machines of their own: what one command does there, and what it says when it cannot be paid."""

import pytest

from tests.process.machines import DEAD6, Swarm, receipts

pytest_plugins = ("tests.process.machines",)
pytestmark = [pytest.mark.timeout(300), pytest.mark.long]


def test_an_announced_address_that_answers_nobody_is_told_and_not_used(swarm6: Swarm) -> None:
    """Both are reached at the addresses that their machines have, IPv6 alone here, so both are paid all the same."""
    jobs = {name: swarm6.join(place, name, f"--announce {DEAD6}") for place, name in ((1, "alice"), (2, "bob"))}
    for name, job in jobs.items():
        swarm6.wait(job, f"{name} is told", lambda job=job: f"note: {DEAD6}, which --announce names" in job.output())
        swarm6.wait(job, f"{name} is paid", lambda job=job: receipts(job) >= 2)
        addresses = swarm6.status(name)["addresses"]
        assert swarm6.status(name)["reachable"] is True and any(a.startswith("/ip6/fd77::") for a in addresses)
        assert all(DEAD6 not in address for address in addresses)


def test_two_that_nobody_reaches_are_told_that_they_cannot_be_paid(swarm: Swarm) -> None:
    """One listens nowhere, the other where only its own machine gets in."""
    jobs = {"alice": swarm.join(1, "alice", "--client"), "bob": swarm.join(2, "bob", "--host 127.0.0.1")}
    for name, job in jobs.items():
        swarm.wait(job, f"{name} is told", lambda job=job: "note: none of the 1 other peers can be" in job.output())
        assert "no-witness" in swarm.advice(name)
    assert swarm.status("bob")["reachable"] is False and "unreachable" in swarm.advice("bob")


def test_two_on_one_machine_that_no_other_reaches_pay_each_other(swarm: Swarm) -> None:
    """The seed, elsewhere, sees both from one address and tells each of the other."""
    jobs = [swarm.join(1, name, "--host 127.0.0.1") for name in ("alice", "bob")]
    for job in jobs:
        swarm.wait(job, "it is paid", lambda job=job: receipts(job) >= 2)
