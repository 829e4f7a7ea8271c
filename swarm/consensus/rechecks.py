"""Averages that are redone: each reducer averages some parts of others too, and who signed something else is found (protocol §3.5)."""

import math
from collections.abc import Sequence

from swarm.consensus.actions import Expose, Recheck, Redo
from swarm.consensus.roster import Roster
from swarm.consensus.round import Findings, Round
from swarm.consensus.rules import RunRules
from swarm.consensus.voice import Voice
from swarm.records.types import Account, Average, Hash, SetContent, Signed, SignedSet

MIN_CONTRIBUTORS = 4  # below, a liar can spoil a round anyway


def shares(rules: RunRules, content: SetContent) -> dict[Account, int]:
    """How many parts of others each reducer of a set averages as well: all together at least `recheck_share` of the parts."""
    reducers = content.reducers
    if rules.recheck_share <= 0.0 or len(reducers) < 2 or len(content.contributors) < MIN_CONTRIBUTORS:
        return dict.fromkeys(reducers, 0)
    each = max(1, math.ceil(rules.recheck_share * rules.num_parts / len(reducers)))
    own = [len(range(place, rules.num_parts, len(reducers))) for place in range(len(reducers))]
    return {who: min(each, rules.num_parts - mine) for who, mine in zip(reducers, own, strict=True)}


def finished(rules: RunRules, r: Round, proposal: SignedSet) -> set[Account]:
    """Reducers of a set that have signed all averages that they were to: their own parts, and as many of others."""
    content = proposal.content
    if not content.reducers:  # the empty set
        return set()
    own: dict[Account, int] = {}
    others: dict[Account, int] = {}
    for part, who in r.averages_over(proposal):
        count = own if content.reducers[part % len(content.reducers)] == who else others
        count[who] = count.get(who, 0) + 1
    wanted = shares(rules, content)
    return {
        who
        for place, who in enumerate(content.reducers)
        if own.get(who, 0) >= len(range(place, rules.num_parts, len(content.reducers)))
        and others.get(who, 0) >= wanted[who]
    }


class Rechecks:
    """From the averages of a new set to those that are certified."""

    def __init__(self, rules: RunRules, voice: Voice, roster: Roster) -> None:
        self._rules, self._voice, self._roster = rules, voice, roster

    def averages(self, r: Round, proposal: SignedSet) -> tuple[tuple[Hash, Account], ...] | None:
        """Digest and probable holder by part; None until all are signed and none is in dispute."""
        content, found = proposal.content, r.findings(proposal)
        by_part: dict[int, dict[Account, Signed[Average]]] = {}
        for (part, who), signed in r.averages_over(proposal).items():
            if who in content.reducers:
                by_part.setdefault(part, {})[who] = signed
        chosen: list[tuple[Hash, Account] | None] = []
        for part in range(self._rules.num_parts):
            signed_by = by_part.get(part, {})
            author = content.reducers[part % len(content.reducers)]
            known = author in signed_by
            chosen.append(self._true_average(r, proposal, found, part, author, signed_by) if known else None)
        settled = tuple(each for each in chosen if each is not None)
        return settled if len(settled) == self._rules.num_parts else None

    def _true_average(
        self,
        r: Round,
        proposal: SignedSet,
        found: Findings,
        part: int,
        author: Account,
        signed_by: dict[Account, Signed[Average]],
    ) -> tuple[Hash, Account] | None:
        digests = {signed.record.digest for signed in signed_by.values()}
        if len(digests) == 1 and part not in found.broken:
            return signed_by[author].record.digest, author
        if part not in found.redone:
            if part not in found.asked:
                found.asked.add(part)
                self._voice.ask(Redo(proposal, part))
            return None
        true = found.redone[part]
        for who, signed in sorted(signed_by.items()):
            if signed.record.digest != true and (part, who) not in found.exposed:
                found.exposed.add((part, who))
                r.silent.add(who)
                self._roster.convict(who)
                self._voice.ask(Expose(proposal, signed, true))
        holders = sorted(who for who, signed in signed_by.items() if signed.record.digest == true)
        return true, holders[0] if holders else self._voice.account

    def begin(self, r: Round, proposal: SignedSet) -> None:
        """As a reducer, once all averages of the set are signed: some of those of others."""
        count = shares(self._rules, proposal.content).get(self._voice.account, 0)
        if count and proposal.signature not in r.rechecked:
            r.rechecked.add(proposal.signature)
            self._voice.ask(Recheck(proposal, count))

    def redone(self, r: Round, proposal: SignedSet, part: int, digest: Hash) -> None:
        """This peer has averaged the part itself."""
        r.findings(proposal).redone[part] = digest

    def broken(self, r: Round, proposal: SignedSet, parts: Sequence[int]) -> None:
        """The averages of these parts cannot be true."""
        r.findings(proposal).broken.update(parts)

    def are_done(self, r: Round, proposal: SignedSet) -> bool:
        """Whether all its reducers have signed what they were to."""
        return finished(self._rules, r, proposal) >= set(proposal.content.reducers)
