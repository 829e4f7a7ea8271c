"""A model sold by commands alone: held, bought, opened; silence and wrong shares give the money back; processes that are stopped."""

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from incentives import sealing
from incentives.devchain import DevChain
from incentives.records import account_of
from peers.market.deliverykey import delivery_file
from peers.market.reference import ModelReference
from tests.chain.commands import ok, own_process_started, refused, sparehive
from tests.chain.market_world import TOKENS, MarketWorld

HOLDERS = ("h1", "h2", "h3")
HOUR, DAY = 3600, 86400


@dataclass
class Trade(MarketWorld):
    cards: list[str] = field(default_factory=list)

    def hold(self, name: str, *options: object, out: str = "") -> list[str]:
        """What one look says."""
        where = ("--dir", self.root / "holders" / name, *self.rpc, *self.keys(name))
        code, said, err = sparehive("model", "hold", "--once", "--latest", *where, *options)
        assert code == 0, err
        return said.splitlines()

    def sell(self, out: str, *options: object) -> str:
        """A new model whose three holders are bonded, two of them being needed."""
        cards = [ok("model", "hold", "--card", *self.keys(name))["card"] for name in HOLDERS]
        given = [option for card in cards for option in ("--holder", card)]
        made = self.publish(out, "--price", "5", "--delivery-hours", 1, *given, *options)
        for name in HOLDERS:
            share = dict(made["shares"])[self.account(name)]  # type: ignore[call-overload]
            self.hold(name, "--share", share)
        self.node.advance(1)
        return str(made["model"])

    def buy(self, model: str, *options: object, name: str = "buyer") -> dict[str, object]:
        return ok("model", "buy", model, *self.rpc, *self.keys(name), *options)

    def refused_buy(self, model: str, *options: object, name: str = "buyer", code: int = 1) -> str:
        return refused("model", "buy", model, *self.rpc, *self.keys(name), *options, code=code)


@pytest.fixture(scope="module")
def trade(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> Trade:
    made = Trade(tmp_path_factory.mktemp("trade"), node)
    for name in ("buyer", *HOLDERS):
        made.keys(name)
    return made


def same(folder: Path, other: Path) -> bool:
    return all((other / each.name).read_bytes() == each.read_bytes() for each in folder.iterdir())


def test_a_model_is_bought_with_one_command_and_opened_and_nothing_is_paid_twice(trade: Trade) -> None:
    model = trade.sell("first")
    before = trade.balance("buyer")
    assert "it costs 5 SPARE-TEST now" in trade.refused_buy(model, "--max-price", "4")
    assert trade.buy(model, "--no-wait")["bought"]
    assert trade.balance("buyer") == before - 5 * TOKENS
    secret = delivery_file(Path(trade.keys("buyer")[1]))
    assert secret.stat().st_mode & 0o777 == 0o600
    assert any("share delivered to" in line for line in trade.hold("h1"))
    assert trade.hold("h3")
    (
        trade.root / "holders" / "h1" / "watch.json"
    ).unlink()  # it looks again from the beginning, and finds that it has delivered
    assert not any("share delivered" in line for line in trade.hold("h1"))
    opened = trade.buy(model, "--from", trade.root / "first", "--out", trade.root / "opened")
    assert (opened["bought"], opened["paid"], opened["state"]) == (False, "0", "complete")
    assert trade.balance("buyer") == before - 5 * TOKENS
    assert same(trade.folder(), trade.root / "opened") and not (trade.root / ".opened.blocks").exists()
    ok("model", "verify", model, *trade.rpc, "--dir", trade.root / "opened")
    fetched = ok(
        "model", "fetch", model, *trade.rpc, "--from", trade.root / "first" / "blocks", "--out", trade.root / "fetched"
    )
    assert fetched["bytes"] == sum(path.stat().st_size for path in (trade.root / "first" / "blocks").iterdir())
    where = ("--from", trade.root / "fetched", "--out", trade.root / "again")
    ok("model", "open", model, *trade.rpc, *trade.keys("buyer"), *where)
    assert same(trade.folder(), trade.root / "again")
    assert "has bought no licence" in refused("model", "open", model, *trade.rpc, *trade.keys("h1"), *where)
    trade.node.advance(DAY + HOUR)
    for_ever = trade.refused_buy(model, "--renew")
    assert "has a licence for ever" in for_ever


def test_silence_gives_the_money_back_and_costs_the_bond(trade: Trade) -> None:
    model = trade.sell("silent")
    before = trade.balance("buyer")
    trade.buy(model, "--no-wait")
    trade.hold("h1")
    trade.node.advance(HOUR + 1)
    line = trade.refused_buy(model)
    assert "too few key holders delivered in time" in line and "5 SPARE-TEST are back in" in line
    assert trade.balance("buyer") == before
    shown = ok("model", "show", model, *trade.rpc)
    assert [int(each["bonded"]) > 0 for each in shown["holders"]] == [True, False, False]
    assert shown["earned"] == str(10 * TOKENS)
    where = ("--dir", trade.root / "holders" / "h1", *trade.rpc, *trade.keys("h1"))
    left = sparehive("model", "hold", "--leave", *where)[1]
    assert "left; --leave again takes the bond" in left
    assert "the bond answers for what was bought before, until" in sparehive("model", "hold", "--leave", *where)[1]
    trade.node.advance(8 * DAY + HOUR + 1)
    owned = trade.balance("h1")
    assert "withdrawn" in sparehive("model", "hold", "--leave", *where)[1]
    assert trade.balance("h1") - owned >= 5 * TOKENS


def test_a_wrong_share_is_shown_and_the_money_is_back(trade: Trade) -> None:
    model = trade.sell("wrong")
    before, ident = trade.balance("buyer"), ModelReference.parse(model).model
    trade.buy(model, "--no-wait")
    key = trade.contract.key_of(account_of(trade.key("buyer")))
    assert key is not None
    sealed = sealing.seal(12345, key, sealing.new_scalar())
    trade.contract.deliver(trade.key("h2"), ident, account_of(trade.key("buyer")), 1, sealed)
    where = ("--from", trade.root / "wrong", "--out", trade.root / "never")
    not_opened = refused("model", "open", model, *trade.rpc, *trade.keys("buyer"), *where)
    assert "`sparehive model buy` shows that and asks the money back" in not_opened
    line = trade.refused_buy(model, *where)
    assert f"key holder {trade.account('h2')} delivered a wrong share" in line
    assert trade.balance("buyer") == before and not (trade.root / "never").exists()
    assert trade.contract.model(ident).num_bonded == 2


@pytest.mark.long
def test_gifts_renewals_served_models_and_wallets_elsewhere(trade: Trade) -> None:
    model = trade.sell("more", "--term-days", 10)
    assert "has set no key that shares can be sealed to" in trade.refused_buy(model, "--for", trade.account("data"))
    trade.buy(trade.sell("own"), "--no-wait")  # who bought something once has a key
    gift = trade.buy(model, "--for", trade.account("buyer"), name="h3")
    assert gift["bought"] and gift["licensee"] == trade.account("buyer")
    assert "is not decided yet" in trade.refused_buy(model, "--renew")
    served = str(trade.publish("served", "--price", "2", "--term-days", 1)["model"])
    first, second = trade.buy(served), trade.buy(served, "--renew")
    assert (first["state"], second["paid"]) == ("delivered", str(2 * TOKENS))
    assert int(str(second["expires_at"])) == int(str(first["expires_at"])) + DAY
    assert trade.buy(served)["bought"] is False
    password = trade.keys("other")[3]
    elsewhere = ("--unsigned", "--wallet", trade.account("other"), "--delivery-key", trade.root / "other.delivery.json")
    calls = ok("model", "buy", model, *trade.rpc, *elsewhere, "--password-file", password)["calls"]
    assert [call["what"] for call in calls] == ["setKey", "approve", "buy"]
    assert {call["from"] for call in calls} == {trade.account("other")}
    assert "--password-file is needed" in refused("model", "buy", model, *trade.rpc, *elsewhere, code=2)
    assert "--from and --out go together" in trade.refused_buy(model, "--out", trade.root / "x", code=2)


def test_what_a_holder_is_given_wrongly_is_one_line(trade: Trade) -> None:
    keys = trade.keys("h1")
    assert "--dir is needed" in refused("model", "hold", *trade.rpc, *keys, code=2)
    where = ("--dir", trade.root / "nobody", "--once", *trade.rpc)
    assert "holds no share" in refused("model", "hold", *where, *keys)
    (share,) = [path for path in (trade.root / "first" / "shares").iterdir() if path.name.startswith("1-")]
    assert "is for 0x" in refused("model", "hold", *where, *keys, "--share", share)
    other = next(path for path in (trade.root / "silent" / "shares").iterdir() if path.name.startswith("1-"))
    mixed = share.read_text().replace(share_of(share), share_of(other))
    (trade.root / "mixed.json").write_text(mixed)
    wrong = ("--dir", trade.root / "wrong-share", "--once", *trade.rpc, *trade.keys("h2"))
    assert "is not the share of the publication" in refused(
        "model", "hold", *wrong, "--share", trade.root / "mixed.json"
    )


def share_of(path: Path) -> str:
    from peers.market.shares import ShareFile

    return ShareFile.read(path).sealed_share


@pytest.mark.long
def test_holders_that_run_deliver_while_the_buyer_waits_and_stop_in_one_line(trade: Trade, tmp_path: Path) -> None:
    model = trade.sell("running")
    where = {name: ("--dir", trade.root / "holders" / name, *trade.rpc, *trade.keys(name)) for name in HOLDERS[:2]}
    running = [
        own_process_started("model", "hold", *options, "--every", 0.5, cwd=tmp_path) for options in where.values()
    ]
    try:
        deadline = time.monotonic() + 60
        while not (trade.root / "holders" / "h2" / "lock").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        bought = trade.buy(model, "--from", trade.root / "running", "--out", tmp_path / "out", name="third")
        assert bought["bought"] and same(trade.folder(), tmp_path / "out")
        again = refused("model", "hold", "--once", *where["h1"])
        assert "another key holder is running in it" in again
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=60) for process in running]
    for process, (out, err) in zip(running, said, strict=True):
        assert process.returncode == 0, err
        assert out.splitlines()[-1].startswith("stopped:") and f"share delivered to {trade.account('third')}" in out
