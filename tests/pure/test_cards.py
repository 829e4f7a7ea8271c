"""Which device a peer trains on, by what its owner says and what the machine has."""

import platform

import pytest
import torch

from swarm.device import HOST, Cards, choose_device, device_class, failed_card, is_out_of_memory, shown_device_class
from swarm.errors import InputError

RIG = Cards(("RTX 3060", "RTX 3070"))


@pytest.mark.parametrize(
    ("wanted", "cards", "device"),
    [
        ("auto", Cards(), "cpu"),
        ("auto", RIG, "cuda:0"),
        ("auto", Cards((), True), "cpu"),
        ("cpu", RIG, "cpu"),
        ("cuda", RIG, "cuda:0"),
        ("cuda:1", RIG, "cuda:1"),
        ("mps", Cards((), True), "mps"),
    ],
)
def test_what_is_there_is_taken(wanted: str, cards: Cards, device: str) -> None:
    assert choose_device(wanted, cards) == torch.device(device)


@pytest.mark.parametrize(
    ("wanted", "cards", "said"),
    [
        ("cuda", Cards(), r"torch finds cpu; a card needs its driver and a build of torch for it"),
        ("cuda:2", RIG, r"torch finds cuda:0 \(RTX 3060\), cuda:1 \(RTX 3070\), cpu$"),
        ("mps", RIG, r"torch finds cuda:0"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(wanted: str, cards: Cards, said: str) -> None:
    with pytest.raises(InputError, match=rf"^device = '{wanted}': is not there: {said}"):
        choose_device(wanted, cards)


def test_this_machines_own_devices_can_be_used() -> None:
    cards = Cards.here()
    assert choose_device("cpu", cards) == HOST
    assert float(torch.ones(2, device=choose_device("auto", cards)).sum()) == 2.0


def test_a_device_class_fits_into_the_record_and_is_read_back() -> None:
    word = device_class(HOST)
    assert len(word) == 32 and shown_device_class(word) == f"cpu {platform.machine()}"
    assert shown_device_class(bytes(32)) == ""
    assert shown_device_class(b"\x1b[31m\xff\n".ljust(32, b"\0")).isprintable()


def test_only_errors_of_a_card_are_its_own() -> None:
    assert "too small" in failed_card(torch.OutOfMemoryError("CUDA out of memory"))
    assert "failed" in failed_card(torch.AcceleratorError("CUDA error: unspecified launch failure"))
    assert failed_card(RuntimeError("shapes do not fit")) == ""
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(torch.AcceleratorError("CUDA error"))
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 45, dtype=torch.uint8)
    assert is_out_of_memory(refused.value) and "this machine's memory" in failed_card(refused.value)
