"""Averages that are redone: reducers average some parts of others too, voters where too few of those are voters, and who signed
something else is found (protocol §3.5)."""

import math
from collections.abc import Sequence

from swarm.consensus.actions import Expose, Recheck, Redo
from swarm.consensus.findings import Findings
from swarm.consensus.roster import Roster
from swarm.consensus.round import Round
from swarm.consensus.rules import RunRules
from swarm.consensus.voice import Voice
from swarm.records.commitments import quorum
from swarm.records.types import Account, Average, Hash, SetContent, SignedSet

MIN_CONTRIBUTORS = 4  # below, a liar can spoil a round anyway


def is_narrow(content: SetContent, voters: Sequence[Account]) -> bool:
    """Whether so few of a set's reducers are voters that all of those may lie: who drew them may have wanted it so."""
    return len(set(voters).intersection(content.reducers)) <= _most_liars(voters)


def shares(rules: RunRules, content: SetContent, voters: Sequence[Account]) -> dict[Account, int]:
    """How many parts of others each reducer of a set, and each voter of a narrow one, averages as well: those who are honest even if
    as many voters lie as may, and all that are none, at least `recheck_share` of the parts together."""
    reducers = content.reducers
    if rules.recheck_share <= 0.0 or len(content.contributors) < MIN_CONTRIBUTORS:
        return dict.fromkeys(reducers, 0)
    narrow = is_narrow(content, voters)
    looking = quorum(len(voters)) if narrow else len(set(voters).intersection(reducers))
    each = max(1, math.ceil(rules.recheck_share * rules.num_parts / (looking - _most_liars(voters))))
    own = {who: len(range(place, rules.num_parts, len(reducers))) for place, who in enumerate(reducers)}
    checkers = [*reducers, *(v for v in voters if v not in own)] if narrow else reducers
    return {who: min(each, rules.num_parts - own.get(who, 0)) for who in checkers}


def _most_liars(voters: Sequence[Account]) -> int:
    return (len(voters) - 1) // 3


def _shares(rules: RunRules, found: Findings) -> dict[Account, int]:
    if found.wanted is None:
        found.wanted = shares(rules, found.content, found.voters)
    return found.wanted


def finished(rules: RunRules, r: Round, proposal: SignedSet) -> set[Account]:
    """Reducers, and voters, that have signed all averages over a set that they were to: their own parts, and as many of others."""
    if not proposal.content.reducers:  # the empty set
        return set()
    found = r.findings(proposal)
    return {
        who
        for who, wanted in _shares(rules, found).items()
        if found.others[who] >= wanted
        and (who not in found.content.reducers or found.own[who] >= found.num_own(who, rules.num_parts))
    }


class Rechecks:
    """From the averages of a new set to those that are certified."""

    def __init__(self, rules: RunRules, voice: Voice, roster: Roster) -> None:
        self._rules, self._voice, self._roster = rules, voice, roster

    def averages(self, r: Round, proposal: SignedSet) -> tuple[tuple[Hash, Account], ...] | None:
        """Digest and probable holder by part; None until all are signed and none is in dispute."""
        found = r.findings(proposal)
        if sum(found.own.values()) < self._rules.num_parts:
            return None
        while found.chosen_at != (found.version, self._roster.num_shown):  # who is shown meanwhile was believed before
            found.chosen_at = (found.version, self._roster.num_shown)
            chosen = [self._true_average(r, proposal, found, part) for part in range(self._rules.num_parts)]
            settled = tuple(each for each in chosen if each is not None)
            found.chosen = settled if len(settled) == self._rules.num_parts else None
        return found.chosen

    def _true_average(self, r: Round, proposal: SignedSet, found: Findings, part: int) -> tuple[Hash, Account] | None:
        author, signed_by = found.author(part), found.by_part[part]
        if part not in found.redone:
            digests = {signed.record.digest for signed in signed_by.values()}
            if len(digests) == 1 and part not in found.broken and not self._is_doubted(proposal, found, author):
                return signed_by[author].record.digest, author
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
                if is_narrow(found.content, found.voters):
                    self._roster.doubt(proposal.signer)
                self._voice.ask(Expose(proposal, signed, true))
        holders = sorted(who for who, signed in signed_by.items() if signed.record.digest == true)
        return true, holders[0] if holders else self._voice.account

    def _is_doubted(self, proposal: SignedSet, found: Findings, author: Account) -> bool:
        """Whether what it signs is redone, whoever agrees: it averaged wrongly before, or was drawn by who drew such a one among few
        voters; those keys cost nothing."""
        if self._rules.recheck_share <= 0.0:
            return False
        drawn_by = self._roster.is_doubted(proposal.signer) and is_narrow(found.content, found.voters)
        return drawn_by or self._roster.is_convicted(author)

    def begin(self, r: Round, proposal: SignedSet) -> None:
        """As a reducer, or a voter, once all averages of the set are signed: some of those of others."""
        count = _shares(self._rules, r.findings(proposal)).get(self._voice.account, 0)
        if count and proposal.signature not in r.rechecked:
            r.rechecked.add(proposal.signature)
            self._voice.ask(Recheck(proposal, count))

    def redone(self, r: Round, proposal: SignedSet, part: int, length: int, digest: Hash) -> None:
        """This peer has averaged the part itself. Where nobody says so yet, it does: others have no reason to look."""
        found = r.findings(proposal)
        said = {signed.record.digest for signed in found.by_part.get(part, {}).values()}
        found.found(part, digest)
        if digest not in said and part not in found.broken and self._voice.account in found.checkers:
            record = proposal.record
            run, epoch, attempt, prev = record.run_id, record.epoch, record.attempt, record.prev_certificate
            self._voice.say(Average(run, epoch, attempt, prev, found.round_set, part, length, digest))

    def broken(self, r: Round, proposal: SignedSet, parts: Sequence[int]) -> None:
        """The averages of these parts cannot be true."""
        r.findings(proposal).found_broken(parts)

    def are_done(self, r: Round, proposal: SignedSet) -> bool:
        """Whether all its reducers have signed what they were to, and of a narrow set a quorum of voters, too."""
        content, done = proposal.content, finished(self._rules, r, proposal)
        looked = not is_narrow(content, r.voters) or not any(_shares(self._rules, r.findings(proposal)).values())
        return done >= set(content.reducers) and (looked or r.has_quorum(done))
