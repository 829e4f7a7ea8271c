"""Runs a gateway: in a command of its own, or as a process beside a peer (`python -m peers.offering DIRECTORY`), which costs the peer's
loop nothing and reads the same blocks."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from peers.bases import cache_root, place_of
from peers.config import load_peer_config
from peers.contents import Contents
from peers.directory import PeerDirectory, write_json
from peers.errors import PeerError, in_one_line
from peers.gateway import Gateway, Served, parse_listen, serving
from peers.invite import Invite
from swarm.checkpoint.bases import BaseFolder, found_base
from swarm.errors import SwarmError


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def offer(directories: Sequence[Path], listen: tuple[str, int], started: Callable[[str, int], None]) -> None:
    """Until SIGINT or SIGTERM. `started`: called once it answers, with its URL and how many blocks there are. ConfigError or StartError in
    one line."""
    contents = Contents(directories)
    asyncio.run(_offer(contents, listen, lambda url: started(url, contents.num_blocks())))


async def _offer(contents: Contents, listen: tuple[str, int], started: Callable[[str], None]) -> None:
    await serve_until_told(Gateway(contents), listen, lambda port: started(url_of(listen[0], port)))


async def serve_until_told(served: Served, listen: tuple[str, int], started: Callable[[int], None]) -> None:
    """Until SIGINT or SIGTERM; one more ends the process at once. `started`: gets the port. StartError in one line."""
    ending, loop = asyncio.Event(), asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def told() -> None:
        ending.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # nothing here has to be put away first

    for number in numbers:
        loop.add_signal_handler(number, told)
    async with serving(served, *listen) as port:
        started(port)
        await ending.wait()


# -- beside a peer -------------------------------------------------------------------------------------------------------
def base_of(directory: PeerDirectory) -> list[BaseFolder]:
    """The model that the peer's run starts from, whose blocks are read out of its files."""
    try:
        base = Invite.of_file(directory.invite).config.task.model.published()
        found = (
            None
            if base is None
            else found_base(place_of(base, cache_root(load_peer_config(directory.config).base_cache)), base)
        )
    except (PeerError, SwarmError, OSError):
        return []
    return [] if found is None else [found]


def main() -> None:
    """Entry point of the process: writes gateway.json, with its URL or why there is none."""
    from peers.supervisor import die_with_parent

    parser = argparse.ArgumentParser(description="answers over HTTP; started by a peer")
    parser.add_argument("directory", type=Path)
    directory = PeerDirectory(parser.parse_args().directory)
    die_with_parent()
    with contextlib.suppress(OSError):
        os.nice(10)
    listen = parse_listen(load_peer_config(directory.config).gateway)
    try:
        contents = Contents([directory.root], base_of(directory))
        asyncio.run(
            _offer(contents, listen, lambda url: write_json(directory.gateway, {"pid": os.getpid(), "url": url}))
        )
    except (PeerError, OSError) as error:
        with contextlib.suppress(OSError):
            write_json(directory.gateway, {"problem": in_one_line(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
