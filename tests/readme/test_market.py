"""The walk of docs/market.md, run as it stands there: a holder, an owner, a storer, a buyer with two commands, the money."""

import re
import socket
from pathlib import Path

import pytest

from incentives.chain.license import deploy_license
from incentives.chain.token import deploy_test_token
from incentives.devchain import RICH_KEY, DevChain, find_tool
from incentives.keys import key_account, to_checksum
from tests.terminal import ROOT, Terminal, until

WALK = (ROOT / "docs" / "market.md").read_text(encoding="utf-8")
STEP = re.compile(r"<!-- test: (?P<how>[^>]*?) -->\n```bash\n(?P<script>.*?)```", re.DOTALL)
TOKENS = 10**18


def test_every_bash_block_is_part_of_the_walk() -> None:
    assert WALK.count("```bash\n") == len(STEP.findall(WALK)) >= 7


@pytest.mark.long
def test_the_walk_from_a_card_to_the_money(tmp_path: Path) -> None:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    with DevChain() as chain, socket.create_server(("127.0.0.1", 0)) as free:
        deploy_license(chain.chain(), RICH_KEY)
        token = to_checksum(deploy_test_token(chain.chain(), RICH_KEY, 10**30))
        port = str(free.getsockname()[1])
        free.close()
        with Terminal(tmp_path / "home", RPC=chain.rpc, CHAIN="31337", TOKEN=token, PORT=port) as terminal:
            (terminal.cwd / "model").mkdir()
            (terminal.cwd / "model" / "config.json").write_text("{}")
            (terminal.cwd / "model" / "model.safetensors").write_bytes(bytes(range(256)) * 9000)
            for how, script in STEP.findall(WALK):
                walk(terminal, chain, token, how, script)
            bought, sold = terminal.cwd / "bought", terminal.cwd / "model"
            assert (bought / "model.safetensors").read_bytes() == (sold / "model.safetensors").read_bytes()
            owner = key_account(terminal.cwd / "owner.json")
            assert owner is not None and chain.balance_of(token, owner) == 105 * TOKENS


def walk(terminal: Terminal, chain: DevChain, token: str, how: str, script: str) -> None:
    if how.startswith("start"):
        chain.advance(1)
        job = terminal.start(script)
        word = {"start, until http": "answers for", "start, until bonded": "put up"}[how]
        until(lambda: word in job.output() or job.process.poll() is not None, 60.0, job.output)
        assert word in job.output()
        return
    if "a day later" in how:
        chain.advance(86400 + 60)
    chain.advance(1)  # a bond answers from the next second on
    for command in re.split(r"\n(?=sparehive )", script):
        said = terminal.run(command)
        if "sparehive wallet" in command:
            (account,) = re.findall("0x[0-9a-fA-F]{40}", said)
            chain.give_gas(account)
            chain.chain().transact(RICH_KEY, "TestToken", bytes.fromhex(token[2:]), "transfer", account, 100 * TOKENS)
        if "model publish" in command:
            terminal.environment["MODEL"] = re.findall(r"^model (\S+)$", said, re.MULTILINE)[0]
