"""What is owed: sums, rounding, order and repetition."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incentives.errors import InputError, TamperedError
from incentives.rewards import PaidReceipt, check_payouts, payment_of
from incentives.tables import PayoutRow, Tables

ACCOUNTS = st.integers(1, 8).map(lambda i: bytes([i]) * 20)
RECEIPTS = st.lists(
    st.builds(
        PaidReceipt, ACCOUNTS, st.integers(1, 12), st.integers(1, 10**6), st.just(b"\1" * 32), st.just(b"\2" * 32)
    ),
    unique_by=lambda receipt: (receipt.account, receipt.epoch),
    max_size=30,
)
AMOUNTS = st.one_of(st.integers(0, 10**24), st.integers(0, 20))
PREVIOUS = st.lists(ACCOUNTS, unique=True).map(
    lambda accounts: [PayoutRow(a, 3, 100 + a[0], 0, 0, 100 + a[0]) for a in sorted(accounts)]
)


@given(PREVIOUS, RECEIPTS, AMOUNTS, AMOUNTS)
def test_payouts_sum_to_what_was_paid_within_the_stated_rounding(
    previous: list[PayoutRow], receipts: list[PaidReceipt], budget: int, price: int
) -> None:
    payment = payment_of(previous, receipts, budget, price)
    new = sum(row.cum_claimable for row in payment.payouts) - sum(row.cum_claimable for row in previous)
    assert new == payment.paid_amount <= payment.pool_amount == min(budget, price * payment.total_units)
    workers = {receipt.account for receipt in receipts}
    assert 0 <= payment.pool_amount - payment.paid_amount <= max(0, len(workers) - 1)
    if price * payment.total_units <= budget:
        assert payment.pool_amount == payment.paid_amount
        by_account = {row.account: row for row in payment.payouts}
        old = {row.account: row.cum_earned for row in previous}
        for account in workers:
            units = sum(receipt.units for receipt in receipts if receipt.account == account)
            assert by_account[account].cum_earned - old.get(account, 0) == price * units


@given(PREVIOUS, RECEIPTS, AMOUNTS, AMOUNTS, st.randoms())
def test_the_order_of_receipts_is_irrelevant_and_adding_one_twice_changes_nothing(
    previous: list[PayoutRow], receipts: list[PaidReceipt], budget: int, price: int, random: object
) -> None:
    shuffled = receipts + receipts[:3]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert payment_of(previous, shuffled, budget, price) == payment_of(previous, receipts, budget, price)


@given(PREVIOUS, RECEIPTS, AMOUNTS, AMOUNTS)
def test_old_accounts_are_carried_on_and_nothing_ever_falls(
    previous: list[PayoutRow], receipts: list[PaidReceipt], budget: int, price: int
) -> None:
    payment = payment_of(previous, receipts, budget, price)
    rows = {row.account: row for row in payment.payouts}
    assert list(rows) == sorted({row.account for row in previous} | {receipt.account for receipt in receipts})
    workers = {receipt.account for receipt in receipts}
    for old in previous:
        new = rows[old.account]
        assert new.cum_units >= old.cum_units
        assert new.cum_claimable >= old.cum_claimable
        if old.account not in workers:
            assert new == old


@given(RECEIPTS, AMOUNTS, AMOUNTS)
def test_equal_units_earn_equal_amounts_and_more_units_never_less(
    receipts: list[PaidReceipt], budget: int, price: int
) -> None:
    rows = sorted(payment_of([], receipts, budget, price).payouts, key=lambda row: row.cum_units)
    for left, right in pairwise(rows):
        assert left.cum_earned <= right.cum_earned
        assert left.cum_units < right.cum_units or left.cum_earned == right.cum_earned


def test_a_worked_example_with_dust() -> None:
    receipts = [PaidReceipt(bytes([i]) * 20, 1, 1, b"\1" * 32, b"\2" * 32) for i in (1, 2, 3)]
    payment = payment_of([], receipts, 100, 50)  # pool 100 of 150 asked for: 33 each, 1 left
    assert [row.cum_claimable for row in payment.payouts] == [33, 33, 33]
    assert (payment.pool_amount, payment.paid_amount) == (100, 99)
    assert [row.total_units for row in payment.receipts] == [1, 2, 3]


def test_no_receipts_pay_nothing_and_keep_what_was() -> None:
    previous = [PayoutRow(b"\1" * 20, 1, 2, 0, 0, 2)]
    payment = payment_of(previous, [], 100, 50)
    assert (payment.payouts, payment.paid_amount, payment.pool_amount) == (tuple(previous), 0, 0)


RECEIPT = PaidReceipt(b"\1" * 20, 1, 5, b"\1" * 32, b"\2" * 32)


@pytest.mark.parametrize("change", [{"units": 6}, {"receipt": b"\3" * 32}, {"signatures": b"\3" * 32}])
def test_two_receipts_that_differ_for_one_account_and_epoch_are_an_error(change: dict[str, object]) -> None:
    payment_of([], [RECEIPT, replace(RECEIPT, epoch=2)], 1, 1)
    with pytest.raises(TamperedError, match="differ for epoch 1"):
        payment_of([], [RECEIPT, replace(RECEIPT, **change)], 1, 1)  # type: ignore[arg-type]


def test_bad_inputs_are_errors_in_one_line() -> None:
    for units in (0, -1, 2**32):
        with pytest.raises(InputError, match="units"):
            payment_of([], [replace(RECEIPT, units=units)], 1, 1)
    with pytest.raises(InputError, match="budget"):
        payment_of([], [RECEIPT], -1, 1)
    row = PayoutRow(b"\1" * 20, 1, 2, 0, 0, 2)
    with pytest.raises(TamperedError, match="ascending"):
        payment_of([row, row], [RECEIPT], 1, 1)


def test_published_payouts_are_checked_against_the_published_receipts() -> None:
    previous = [PayoutRow(b"\2" * 20, 1, 2, 0, 0, 2)]
    payment = payment_of(previous, [RECEIPT], 10**18, 7)
    tables = Tables(b"\1" * 32, 1, b"\2" * 20, 0, 1, 10**18, 7, (), payment.receipts, payment.payouts)
    assert check_payouts(previous, tables) == payment
    richer = replace(payment.payouts[0], cum_earned=36, cum_claimable=36)
    for payouts in (
        (richer, payment.payouts[1]),
        payment.payouts[:1],
        (*payment.payouts, PayoutRow(b"\3" * 20, 0, 1, 0, 0, 1)),
    ):
        with pytest.raises(TamperedError, match="payout of 0x"):
            check_payouts(previous, replace(tables, payouts=payouts))
    with pytest.raises(TamperedError, match="payout of 0x0202"):
        check_payouts([], tables)
