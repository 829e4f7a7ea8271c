"""What its owner should know while a peer runs, and can do about it: work that cannot be paid, an address that answers nobody.
Pure: the clock is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

GRACE_SECONDS = 10.0  # a swarm that comes together, or a link that comes back, is no news
MISSED_ROUNDS = 3  # in a row, before its owner is told that its work comes too late
AT_ONCE = "daemon-silent"  # the code of what is told without grace
PORT_ADVICE = "open TCP port {port} in this machine's firewall and forward it in the router"


@dataclass(frozen=True, slots=True)
class Advice:
    """`code` is for programs, `text` one line for people, with the remedy."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Of a peer at one moment. `others`: how many other peers train now, `witnesses` of them can witness for this one.
    `is_reachable` None: not known yet, or nothing listens here."""

    is_seed: bool
    is_client: bool
    is_paid_run: bool
    port: int
    linked: int
    others: int
    witnesses: int
    is_reachable: bool | None
    asked: int = 0
    silent_addresses: tuple[str, ...] = ()  # that the owner announces, or that stand in the invite
    self_silent_addresses: tuple[str, ...] = ()  # of a seed's invite, tried from its own machine alone
    other_swarms: Mapping[str, str] = field(
        default_factory=dict
    )  # address that was named → founder of its peer's swarm
    problems: Mapping[str, str] = field(default_factory=dict)  # invited address → why there is no link
    daemon_silent_seconds: float = 0.0
    has_node: bool = True  # that is asked what the organiser proposes
    node_silence: str = ""  # why it has not answered for a while
    lacks_room_to_keep: bool = False  # what an auditor needs: the day's writes to disk are used up
    is_disk_quota_reached: bool = False
    smaller_pieces: int = 0  # samples that are computed at once, as the memory takes no more; 0: all of a step
    waits_for_data_seconds: float = 0.0  # training stands still until then
    missing_seats: int = 0  # peers that the run's first round still waits for; 0: it has begun
    missed_rounds: int = 0  # that this peer took part in and that ended without its work, one after the other
    contribute_seconds: float = 0.0  # what the run gives each for a round's bytes
    has_ended: bool = False  # the run: nothing is done any more that could be paid


def advise(now: Circumstances) -> list[Advice]:
    """The most important first."""
    found = _of_a_seed(now) if now.is_seed else [] if now.has_ended else _of_a_volunteer(now)
    if now.missing_seats and (now.is_seed or now.others):  # who is alone is told that
        found.append(
            Advice(
                "waits-for-peers",
                f"the run begins once {missing_words(now.missing_seats)} (rounds.min_seated in run.toml): nothing is averaged until "
                "then; invite somebody",
            )
        )
    for address, founder in now.other_swarms.items():
        found.insert(
            0,
            Advice(
                "two-swarms",
                f"this run has two swarms: {_bare(address)} is in the one that seed {founder} began, and this peer in another; they "
                "share nothing, and a settlement pays one of them: ask the organiser which seed to keep, and leave the other",
            ),
        )
    if now.is_paid_run:
        found += of_watching(now.has_node, now.node_silence)
    found += _of_this_machine(now)
    if now.daemon_silent_seconds:
        found.insert(
            0, Advice(AT_ONCE, "the p2p daemon does not answer: nobody is heard; if it stays so the peer starts anew")
        )
    return found


def of_watching(has_node: bool, silence: str) -> list[Advice]:
    """Of proposals that nobody looks at. `has_node`: there is one to ask; `silence`: why it has not answered for a while."""
    if not has_node:
        return [
            Advice(
                "nobody-watches",
                "nobody watches for you what the organiser proposes to pay: name a node of its chain with --rpc URL, or look yourself with "
                "`sparehive rewards` and `sparehive verify` while a window is open",
            )
        ]
    if silence:
        return [
            Advice(
                "watch-fails",
                f"nobody watches now what the organiser proposes to pay: {silence}; if it stays so name another node with --rpc",
            )
        ]
    return []


def _of_this_machine(now: Circumstances) -> list[Advice]:
    """Of its disk and its memory."""
    found = []
    if now.is_disk_quota_reached:
        found.append(
            Advice(
                "disk-quota",
                "disk_quota_bytes in peer.toml is reached, though all was removed that can be: nothing that can wait is written; "
                "raise it, or make room in the peer's directory",
            )
        )
    elif now.lacks_room_to_keep:
        found.append(
            Advice(
                "disk-budget",
                "what an auditor would need to redo the newest work is not kept: disk_write_bytes_per_day in peer.toml is used up; "
                "raise it if the disk bears more",
            )
        )
    if now.waits_for_data_seconds > 0.0:
        found.append(
            Advice(
                "waits-for-data",
                "training waits for data that no linked peer has handed out yet: it goes on by itself; if it stays so, look whether "
                "your line is slow, or raise data_cache_bytes in peer.toml",
            )
        )
    if now.smaller_pieces:
        found.append(
            Advice(
                "small-memory",
                f"memory is too small for a whole step: it is computed in pieces of {now.smaller_pieces} samples, with the same result; "
                f"--micro-batch {now.smaller_pieces} keeps to that from the start",
            )
        )
    return found


def _of_late_work(now: Circumstances) -> list[Advice]:
    if now.missed_rounds < MISSED_ROUNDS:
        return []
    unpaid = ", unpaid until then" if now.is_paid_run else ""
    return [
        Advice(
            "too-late",
            f"the last {now.missed_rounds} rounds ended without this peer's work, which did not reach the others in time: its units wait "
            f"for a round that holds them{unpaid}; a round gives {now.contribute_seconds:g} s, so keep line and processor free of other "
            "things, or join a run with a smaller model",
        )
    ]


def _of_a_volunteer(now: Circumstances) -> list[Advice]:
    found = _of_late_work(now)
    unpaid = "what is done now cannot be paid" if now.is_paid_run else "nobody can average or witness what is done now"
    port = PORT_ADVICE.format(port=now.port)
    begins = f", which begins once {missing_words(now.missing_seats)}" if now.missing_seats and now.linked else ""
    if not now.linked and now.problems:
        found += of_problems(now.problems, f"; until then {unpaid}")
    elif not now.others:
        found.append(
            Advice(
                "alone",
                f"no other peer trains in this run{begins}: {unpaid}, it takes another peer to witness it; invite somebody",
            )
        )
    elif not now.witnesses:
        remedy = (
            "one of them has to be reachable: ask the organiser for a peer that is, or join without --client where a port can be opened"
            if now.is_client
            else f"one of them has to be reachable: {port}"
        )
        if now.is_reachable:
            remedy = (
                "one of them has to be reachable besides this one: they can open a port, or the organiser adds a peer"
            )
        found.append(
            Advice(
                "no-witness", f"none of the {now.others} other peers can be reached from outside: {unpaid}; {remedy}"
            )
        )
    for address in now.silent_addresses:
        found.append(
            Advice(
                "announced-address-silent",
                f"{_bare(address)}, which --announce names, answers none of the {now.asked} peers that tried: "
                f"check address and port, or leave --announce out; {port}",
            )
        )
    if now.is_reachable is False and not now.silent_addresses:
        found.append(
            Advice(
                "unreachable",
                f"no address of this peer answers from outside ({now.asked} tried): it takes part as a client and is paid while others "
                f"can witness; to be a witness for others: {port}",
            )
        )
    return found


def of_problems(problems: Mapping[str, str], meanwhile: str = "") -> list[Advice]:
    """Of a peer that is linked to nobody: invited address → why; and what that means for who trains `meanwhile`."""
    if not problems:
        return []
    why = "; ".join(f"{_bare(address)} {problem}" for address, problem in list(problems.items())[:3])
    hint = f"Is the seed up, and reachable from here? It goes on trying{meanwhile}"
    return [Advice("no-link", f"linked to nobody yet: {why}. {hint}")]


def of_a_storer(is_unreachable: bool, port: int, is_full: bool, problem: str) -> list[Advice]:
    """`problem`: why something that it is to keep is not there yet; `is_full`: it is that its quota is too small."""
    found = []
    if is_unreachable:
        found.append(
            Advice(
                "storer-unreachable",
                "no address of this storer answers from outside: nobody can fetch from it, nor witness that it stores; "
                + PORT_ADVICE.format(port=port),
            )
        )
    if problem and is_full:
        found.append(
            Advice("storer-full", f"the quota is too small: {problem}; raise --quota, or leave it to other storers")
        )
    elif problem:
        found.append(Advice("storer-lacks", f"not everything is here yet: {problem}"))
    return found


def _of_a_seed(now: Circumstances) -> list[Advice]:
    found = []
    for address in now.silent_addresses:
        found.append(
            Advice(
                "invite-address-silent",
                f"{_bare(address)}, which the invite names, answers none of the {now.asked} peers that tried: who has only this "
                f"address cannot join; {PORT_ADVICE.format(port=now.port)}, or give the right --announce and hand out the new invite",
            )
        )
    if not now.linked:
        for address in now.self_silent_addresses:
            found.append(
                Advice(
                    "invite-address-unproven",
                    f"{_bare(address)}, which the invite names, does not answer from this machine and nobody has joined yet: try it "
                    f"from another network; {PORT_ADVICE.format(port=now.port)}",
                )
            )
    return found


def missing_words(seats: int) -> str:
    """That so many more have to come before a run begins."""
    return "1 more peer trains" if seats == 1 else f"{seats} more peers train"


def _bare(address: str) -> str:
    return address.split("/p2p/")[0]


class Patience:
    """Passes on what has held for `GRACE_SECONDS`, so that what comes and goes troubles nobody."""

    def __init__(self) -> None:
        self._codes: dict[str, float] = {}  # since when

    def lasting(self, advice: Sequence[Advice], now: float) -> list[Advice]:
        codes = {each.code for each in advice}
        self._codes = {code: self._codes.get(code, now) for code in codes}
        return [a for a in advice if a.code == AT_ONCE or now - self._codes[a.code] >= GRACE_SECONDS]


__all__ = [
    "Advice",
    "Circumstances",
    "Patience",
    "advise",
    "missing_words",
    "of_a_storer",
    "of_problems",
    "of_watching",
]
