"""`make demo-market` with all its processes: what was bought is what was trained, and the price arrives to the last base unit."""

import json
from pathlib import Path

import pytest

from incentives.devchain import find_tool
from peers.demo_market import CONTRIBUTORS, PRICE, run_market_demo


@pytest.mark.long
@pytest.mark.timeout(900)
def test_everybody_who_made_a_model_is_paid_for_it(tmp_path: Path) -> None:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    run_market_demo(tmp_path / "market")
    report = json.loads((tmp_path / "market" / "report.json").read_text(encoding="utf-8"))
    assert sum(map(int, report["arrived"].values())) == int(report["price"]) == PRICE
    assert all(int(report["arrived"][name]) > 0 for name in (*CONTRIBUTORS, "organiser", "data", "storer-1"))
    assert len(set(report["losses"].values())) == 1
    bought, sold = tmp_path / "market" / "bought", tmp_path / "market" / "model"
    assert (bought / "model.safetensors").read_bytes() == (sold / "model.safetensors").read_bytes()
