"""A model sold on a chain: its key in shares that a buyer opens, a share shown wrong, silence, and who is paid."""

from dataclasses import dataclass, replace

import pytest
from coincurve import PrivateKey

from incentives import sealing
from incentives.chain.license import LicenseContract, Publication, deploy_license, license_address
from incentives.chain.reverts import Reverted
from incentives.chain.token import TokenContract, deploy_test_token
from incentives.devchain import RICH_KEY, DevChain
from incentives.errors import InputError
from incentives.keys import to_checksum
from incentives.records import account_of

PRICE, DELIVERY, DAY = 10**18, 3600, 86400
BUYER_SECRET = 123456789


def key_of(number: int) -> PrivateKey:
    return PrivateKey(number.to_bytes(32, "big"))


HOLDERS, BUYER, DATA = [key_of(7001), key_of(7002), key_of(7003)], key_of(7010), key_of(7020)


@dataclass
class Market:
    node: DevChain
    contract: LicenseContract
    token: TokenContract
    secret: int
    shares: list[int]
    publication: Publication

    def sell(self, number: int) -> bytes:
        """Another model, with its holders bonded."""
        published = replace(self.publication, root=number.to_bytes(32, "big"))
        model = self.contract.publish(RICH_KEY, published)
        for index, holder in enumerate(HOLDERS):
            self.contract.bond(holder, model, index, self.contract.model(model))
        self.node.advance(1)
        return model

    def buy(self, model: bytes) -> None:
        self.contract.buy(BUYER, model, account_of(BUYER), self.contract.model(model))

    def deliver(self, model: bytes, index: int, share: int) -> None:
        key = self.contract.key_of(account_of(BUYER))
        assert key is not None
        sealed = sealing.seal(share, key, sealing.new_scalar())
        self.contract.deliver(HOLDERS[index], model, account_of(BUYER), index, sealed)


@pytest.fixture(scope="module")
def market(node: DevChain) -> Market:
    chain = node.chain()
    contract = LicenseContract(chain, deploy_license(chain, RICH_KEY))
    token = TokenContract(chain, deploy_test_token(chain, RICH_KEY, 10**30, b"\x08" * 32))
    for key in [*HOLDERS, BUYER, DATA]:
        node.give_gas(account_of(key))
        chain.transact(RICH_KEY, "TestToken", token.address, "transfer", to_checksum(account_of(key)), 100 * PRICE)
    secret = sealing.new_scalar()
    shares = sealing.split(secret, 2, 3)
    publication = Publication(
        bytes(32), b"\x05" * 32, token.address, 7000, PRICE, 30 * DAY, data_owners=((account_of(DATA), 3000),),
        delivery_seconds=DELIVERY, threshold=2, bond_amount=PRICE,
        holders=tuple((account_of(h), sealing.point_of(s)) for h, s in zip(HOLDERS, shares, strict=True)),
    )  # fmt: skip
    contract.set_key(BUYER, sealing.point_of(BUYER_SECRET))
    return Market(node, contract, token, secret, shares, publication)


def test_it_stands_where_its_code_says(market: Market) -> None:
    assert market.contract.address == license_address()
    assert market.contract.chain.is_code("ModelLicense", license_address(), None)


def test_a_buyer_opens_the_key_from_what_holders_put_on_chain(market: Market) -> None:
    contract, buyer = market.contract, account_of(BUYER)
    model = market.sell(1)
    owner, published = contract.publication(model)
    assert (owner, published.model_id(owner)) == (account_of(RICH_KEY), model)
    assert sealing.is_consistent([commitment for _, commitment in published.holders], published.threshold)
    assert not contract.has_access(model, buyer)
    market.buy(model)
    assert contract.has_access(model, buyer)
    for index in (2, 0):
        market.deliver(model, index, market.shares[index])
    opened = {h: sealing.open_share(s, BUYER_SECRET) for h, s in contract.deliveries(model, buyer).items()}
    assert sealing.content_key(sealing.combine(opened)) == sealing.content_key(market.secret)
    assert contract.licence(model, buyer).state == "complete"
    market.node.advance(DAY + 1)
    contract.confirm(RICH_KEY, model, [buyer])
    assert contract.licence(model, buyer).state == "delivered"
    assert contract.model(model).earned_amount == PRICE
    contract.collect(RICH_KEY, model, 0)
    before = market.token.balance_of(account_of(DATA))
    contract.withdraw(DATA, market.token.address, account_of(DATA))
    assert market.token.balance_of(account_of(DATA)) - before == PRICE * 3 // 10


def test_a_wrong_share_is_shown_wrong_and_a_right_one_is_not(market: Market) -> None:
    contract, buyer = market.contract, account_of(BUYER)
    model = market.sell(2)
    market.buy(model)
    market.deliver(model, 0, market.shares[0])
    market.deliver(model, 1, market.shares[1] ^ 1)
    found, owed = contract.deliveries(model, buyer), contract.owed(market.token.address, buyer)
    with pytest.raises(Reverted, match="ShareIsRight"):
        contract.dispute(BUYER, model, buyer, 0, sealing.show(found[0], BUYER_SECRET, model, buyer))
    with pytest.raises(Reverted, match="NoSuchEvidence"):  # made for another model
        contract.dispute(BUYER, model, buyer, 1, sealing.show(found[1], BUYER_SECRET, bytes(32), buyer))
    contract.dispute(BUYER, model, buyer, 1, sealing.show(found[1], BUYER_SECRET, model, buyer))
    assert contract.owed(market.token.address, buyer) == owed + PRICE
    assert not contract.has_access(model, buyer)
    assert contract.model(model).num_bonded == 2


def test_silence_gives_the_money_back(market: Market) -> None:
    contract, buyer = market.contract, account_of(BUYER)
    model = market.sell(3)
    market.buy(model)
    with pytest.raises(Reverted, match="DeliveryOpen"):
        contract.refund(BUYER, model, buyer)
    owed = contract.owed(market.token.address, buyer)
    market.node.advance(DELIVERY + 1)
    contract.refund(BUYER, model, buyer)
    assert contract.owed(market.token.address, buyer) == owed + PRICE
    assert contract.model(model).earned_amount == 3 * PRICE  # all bonds


def test_an_unknown_model_is_one_line(market: Market) -> None:
    with pytest.raises(InputError, match="is not published on this chain"):
        market.contract.model(b"\x09" * 32)


def test_an_offer_that_changed_since_it_was_seen_takes_nothing(market: Market) -> None:
    model = market.sell(4)
    seen = market.contract.model(model)
    market.contract.set_offer(RICH_KEY, model, PRICE, DAY)
    with pytest.raises(Reverted, match="look at the offer again"):
        market.contract.buy(BUYER, model, account_of(BUYER), seen)
