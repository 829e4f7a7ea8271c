"""Gas of what people send, measured on anvil with 1,000 accounts in the payout tree: `python -m tests.chain.gas --write`
puts it into incentives/contracts/gas.txt. The proofs are Python's; the contract judges them."""

import hashlib
import sys
from pathlib import Path

from coincurve import PrivateKey

from incentives import records, sealing
from incentives.chain.license import LicenseContract, Publication, deploy_license
from incentives.chain.registry import PeerConsent, RegistryContract, deploy_registry
from incentives.chain.settlement import SettlementContract, deploy_settlement
from incentives.chain.terms import Terms, init_code
from incentives.chain.token import TokenContract, deploy_test_token
from incentives.claim import Payouts
from incentives.closing import proposal_of
from incentives.devchain import RICH_KEY, DevChain
from incentives.keys import to_checksum
from incentives.rewards import PaidReceipt, payment_of
from incentives.storage import StoredObject
from incentives.tables import CertificateRow, PayoutRow, Tables

FILE = Path(__file__).parents[2] / "incentives" / "contracts" / "gas.txt"
ACCOUNTS, BATCH, PRICE, WINDOW, RUN = 1000, 20, 10**15, 10, b"\x01" * 32
# What a prototype of another shape took (its claims were to wallets that held tokens already: 17,100 less at the first).
AIMS = {
    "propose and finalise, first": 239_000,
    "propose and finalise, later": 239_000,
    "claim, first, token held": 88_000,
    "claim, repeat": 71_000,
    "claimMany of 20, repeat, each": 33_000,
    "licence, buy, next": 79_000,
    "segment of 10 GiB shown": 110_000,
}
AT_MOST = {
    "segment of 10 GiB shown": 120_000,
    "claim, first, token held": 95_000,
    "claim, repeat": 75_000,
    "licence, buy, next": 90_000,
}
NEW_BALANCE = 17_100  # a storage slot that was zero


def measure(node: DevChain) -> dict[str, int]:
    """Gas by name. Takes some seconds."""
    chain = node.chain()
    found: dict[str, int] = {}
    registry = RegistryContract(chain, deploy_registry(chain, RICH_KEY))
    token = TokenContract(chain, deploy_test_token(chain, RICH_KEY, 10**30, b"\x02" * 32))
    organiser = records.account_of(RICH_KEY)
    terms = Terms(token.address, RUN, organiser, PRICE, WINDOW, 10**6, 10**6, 10**24)
    place = deploy_settlement(chain, RICH_KEY, terms).settlement
    contract = SettlementContract(chain, place)
    *_, funded = contract.fund(RICH_KEY, token, 10**24)
    found["fund"] = funded.gas_used
    peers = [PrivateKey((index + 1).to_bytes(32, "big")) for index in range(BATCH + 1)]
    accounts = [records.account_of(peer) for peer in peers]
    others = [(index + 1).to_bytes(2, "big") * 10 for index in range(ACCOUNTS - len(accounts))]
    for index, (peer, account) in enumerate(zip(peers, accounts, strict=True)):
        wallet = PrivateKey((1000 + index).to_bytes(32, "big"))
        owner = records.account_of(wallet)
        digest = binding_digest(registry, owner, account)
        consent = PeerConsent(account, bytes(32), 2**40, records.sign(peer, digest))
        found["bindFor"] = registry.bind_for(RICH_KEY, owner, consent, records.sign(wallet, digest)).gas_used
    before: tuple[PayoutRow, ...] = ()
    for number, name in enumerate(("first", "later")):
        state = contract.state()
        paid = [PaidReceipt(a, 10 * number + 1, 7, b"\x02" * 32, b"\x03" * 32) for a in (*accounts, *others)]
        payment = payment_of(before, paid, state.available_amount, PRICE)
        tables = Tables(
            RUN, chain.chain_id, place, 10 * number, 10 * number + 10, state.available_amount, PRICE,
            tuple(CertificateRow(10 * number + 1 + at, bytes(31) + b"\x04", bytes(32)) for at in range(10)),
            payment.receipts, payment.payouts,
        )  # fmt: skip
        proposed = contract.propose(RICH_KEY, proposal_of(tables, payment.paid_amount, number), 10 * number)
        node.advance(WINDOW + 1)
        final = contract.finalise(RICH_KEY)
        found[f"propose, {name}"], found[f"finalise, {name}"] = proposed.gas_used, final.gas_used
        found[f"propose and finalise, {name}"] = proposed.gas_used + final.gas_used
        payouts = Payouts(tables.payouts, tables.payout_tree())
        one = contract.claim(RICH_KEY, payouts.prove(accounts[:1])).gas_used
        many = contract.claim(RICH_KEY, payouts.prove(accounts[1:])).gas_used // BATCH
        when = "repeat" if number else "first"
        found[f"claim, {when}"], found[f"claimMany of {BATCH}, {when}, each"] = one, many
        before = payment.payouts
    found["claim, first, token held"] = found["claim, first"] - NEW_BALANCE
    found["segment of 10 GiB shown"] = measure_segment(node)
    licences = measure_licences(node, token, place, payouts)
    return found | {f"licence, {name}": gas for name, gas in licences.items()}


def measure_segment(node: DevChain) -> int:
    """Of the segment with the longest path; the siblings are anybody's, the root follows from them."""
    chain, size, index = node.chain(), 10 << 30, 0x5A5A5A

    def sha(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    segment = b"\xa5" * 1024
    path = tuple(sha(bytes([level])) for level in range(StoredObject(b"", size).path_length(index)))
    top, at, last, rest = sha(b"\0", segment), index, (size - 1) // 1024, iter(path)
    while last:
        if at & 1:
            top = sha(b"\1", next(rest), top)
        elif at < last:
            top = sha(b"\1", top, next(rest))
        at, last = at >> 1, last >> 1
    root = sha(b"\2", size.to_bytes(8, "big"), top)
    place = chain.create(RICH_KEY, init_code("SegmentTree"), "SegmentTree")
    asked = (root, size, index, segment, list(path))
    assert chain.call("SegmentTree", place, "isSegment", *asked)
    return chain.transact(RICH_KEY, "SegmentTree", place, "isSegment", *asked).gas_used


def measure_licences(node: DevChain, token: TokenContract, settlement: bytes, payouts: Payouts) -> dict[str, int]:
    """Of a run's model with a key of 2 in 3 shares, whose holders and payer are one account, and which is then bought for others."""
    chain = node.chain()
    found: dict[str, int] = {}
    contract = LicenseContract(chain, deploy_license(chain, RICH_KEY))
    owner = records.account_of(RICH_KEY)
    shares = sealing.split(5, 2, 3)
    holders = tuple((owner, sealing.point_of(share)) for share in shares)
    model = contract.publish(
        RICH_KEY,
        Publication(
            b"\x01" * 32, b"\x02" * 32, token.address, 5000, PRICE, 0, settlement, 3000, ((b"\x05" * 20, 2000),),
            delivery_seconds=3600, threshold=2, bond_amount=PRICE, holders=holders,
        ),
    )  # fmt: skip
    chain.transact(RICH_KEY, "TestToken", token.address, "approve", to_checksum(contract.address), 2**256 - 1)
    seen = contract.model(model)
    for index in range(3):
        *_, sent = contract.bond(RICH_KEY, model, index, seen)
        found["bond"] = sent.gas_used
    node.advance(1)
    buyers = [PrivateKey((3000 + number).to_bytes(32, "big")) for number in range(2)]
    accounts = [records.account_of(buyer) for buyer in buyers]
    for buyer, account in zip(buyers, accounts, strict=True):
        node.give_gas(account)
        chain.transact(RICH_KEY, "TestToken", token.address, "transfer", to_checksum(account), 10 * PRICE)
        chain.transact(buyer, "TestToken", token.address, "approve", to_checksum(contract.address), 2**256 - 1)
        found["setKey"] = contract.set_key(buyer, sealing.point_of(77)).gas_used
        *_, sent = contract.buy(buyer, model, account, seen)
        found["buy, next"] = sent.gas_used
    contract.set_key(RICH_KEY, sealing.point_of(77))
    *_, gift = contract.buy(buyers[0], model, owner, seen)
    found["buy, gift"] = gift.gas_used
    for index in (0, 1):
        sealed = sealing.seal(shares[index], sealing.point_of(77), 99)
        found["deliver"] = contract.deliver(RICH_KEY, model, accounts[0], index, sealed).gas_used
    contract.deliver(RICH_KEY, model, accounts[1], 0, sealing.seal(3, sealing.point_of(77), 99))
    evidence = sealing.show(sealing.seal(3, sealing.point_of(77), 99), 77, model, accounts[1])
    found["dispute"] = contract.dispute(RICH_KEY, model, accounts[1], 0, evidence).gas_used
    node.advance(86401)
    found["confirm"] = contract.confirm(RICH_KEY, model, accounts[:1]).gas_used
    found["refund"] = contract.refund(RICH_KEY, model, owner).gas_used
    found["collect"] = contract.collect(RICH_KEY, model, 0).gas_used
    contract.collect(RICH_KEY, model, 1)
    found["withdraw"] = contract.withdraw(RICH_KEY, token.address, owner).gas_used
    (payout,) = payouts.prove([records.account_of(PrivateKey((1).to_bytes(32, "big")))])
    found["payContributor"] = contract.pay_contributor(RICH_KEY, model, payout).gas_used
    return found


def binding_digest(registry: RegistryContract, wallet: bytes, account: bytes) -> bytes:
    """What both are to sign, as `measure` binds them; the registry says it."""
    arguments = (to_checksum(wallet), to_checksum(account), bytes(32), 2**40)
    return bytes(registry.chain.call("PeerRegistry", registry.address, "bindingDigest", *arguments))


def text_of(found: dict[str, int]) -> str:
    return "".join(f"{gas:>8}  {name}\n" for name, gas in sorted(found.items()))


def committed() -> dict[str, int]:
    lines = (line.split(maxsplit=1) for line in FILE.read_text().splitlines() if line)
    return {name: int(gas) for gas, name in lines}


if __name__ == "__main__":
    with DevChain() as local:
        text = text_of(measure(local))
    sys.stdout.write(text)
    if "--write" in sys.argv:
        FILE.write_text(text)
