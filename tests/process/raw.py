"""Streams used against their rules: bytes that are no frame, and everything that comes."""

from swarm.transport.node import Stream


def say(stream: Stream, data: bytes) -> None:
    stream._writer.write(data)


async def swallow(stream: Stream) -> None:
    """Read until the other end has had enough, whatever it says. `OSError` where the connection is gone."""
    while await stream._reader.read(1 << 16):
        pass
