"""A libp2p node that breaks rules, for `tests/process/test_ipfs.py`: python -m tests.process.lying_ipfs WAY …

lie DIR          hands out blocks of more than 5,000 bytes with one byte changed
wants ADDR       floods ADDR with 400,000 wants for blocks that nobody has, and reads nothing
blocks ADDR      sends ADDR 200 MB of blocks that nobody asked for
long ADDR        begins a message of 5 MiB; and one whose length has no end
"""

import os
import secrets
import sys
from pathlib import Path

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.peerinfo import info_from_p2p_addr

from peers.contents import Contents
from peers.ipfs_node import serve
from swarm.transport.bitswap import PROTOCOL, Message, Want, cid_of, framed


class Lying(Contents):
    def get(self, digest: bytes) -> bytes | None:
        data = super().get(digest)
        return data if data is None or len(data) <= 5000 else data[:-1] + bytes((data[-1] ^ 1,))


def _words(way: str) -> list[bytes]:
    """What is written to a stream of its own each."""
    if way == "wants":

        def wants(n: int) -> Message:
            return Message(tuple(Want(cid_of(n.to_bytes(4, "big") + i.to_bytes(28, "big"))) for i in range(4000)))

        return [framed(wants(n)) for n in range(100)]
    if way == "blocks":
        return [framed(Message(blocks=((cid_of(b"")[:4], os.urandom(1 << 20)),))) for _ in range(200)]
    return [b"\x80\x80\xc0\x02" + bytes(1 << 20), b"\xff" * 64]


async def flood(way: str, address: str) -> None:
    host = new_host(key_pair=create_new_key_pair(secrets.token_bytes(32)))
    info = info_from_p2p_addr(multiaddr.Multiaddr(address))
    async with host.run(listen_addrs=[]):
        await host.connect(info)
        for word in _words(way):
            try:
                with trio.move_on_after(5):
                    stream = await host.new_stream(info.peer_id, [PROTOCOL])
                    await stream.write(word)
                    await stream.close()
            except Exception as error:
                print(f"refused: {type(error).__name__}", flush=True)
        print("done", flush=True)


def main() -> None:
    way, what = sys.argv[1:]
    if way == "lie":
        key = create_new_key_pair(secrets.token_bytes(32))
        trio.run(serve, Lying([Path(what)]), key, ["/ip4/127.0.0.1/tcp/0"], lambda found: print(found[0], flush=True))
    else:
        trio.run(flood, way, what)


if __name__ == "__main__":
    main()
