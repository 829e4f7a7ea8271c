"""`python -m benchmarks.micro`: codecs, outer step and content hashing, each beside a reference measured in the same run.

References: hivemind's own tensor codecs, torch's SGD with Nesterov momentum, a plain SHA-256 of the same bytes.
"""

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from swarm.checkpoint.unixfs import encode_file
from swarm.optim.codec import decode, encode
from swarm.optim.outer import outer_step


@dataclass(frozen=True)
class Timing:
    """Medians over the repeats, one thread. `size`: bytes produced per value; `error`: relative, of one round trip."""

    what: str
    encode_ns: float  # per value; of the whole operation where there is no decoding
    decode_ns: float | None = None
    size: float | None = None
    error: float | None = None


def seconds(work: Callable[[], object], repeats: int) -> float:
    work()  # memory, caches
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def codecs(values: torch.Tensor, repeats: int) -> list[Timing]:
    """Ours by part, as they go on the wire, and hivemind's."""
    from hivemind.compression import (
        CompressionInfo,
        Float16Compression,
        ScaledFloat16Compression,
        Uniform8BitQuantization,
    )

    n, info = values.numel(), CompressionInfo.from_tensor(values)
    norm = float(values.norm())
    out = []
    for name in ("int8", "int4", "int2"):
        wire = encode(values, name)
        out.append(
            Timing(
                f"sparehive {name}",
                seconds(lambda name=name: encode(values, name), repeats) / n * 1e9,  # type: ignore[misc]
                seconds(lambda name=name, wire=wire: decode(wire, n, name), repeats) / n * 1e9,  # type: ignore[misc]
                len(wire) / n,
                float((decode(wire, n, name) - values).norm()) / norm,
            )
        )
    for title, codec in (
        ("hivemind Uniform8BitQuantization", Uniform8BitQuantization()),
        ("hivemind ScaledFloat16Compression", ScaledFloat16Compression()),
        ("hivemind Float16Compression", Float16Compression()),
    ):
        packed = codec.compress(values, info)
        out.append(
            Timing(
                title,
                seconds(lambda codec=codec: codec.compress(values, info), repeats) / n * 1e9,  # type: ignore[misc]
                seconds(lambda codec=codec, packed=packed: codec.extract(packed), repeats) / n * 1e9,  # type: ignore[misc]
                len(packed.buffer) / n,
                float((codec.extract(packed) - values).norm()) / norm,
            )
        )
    return out


def outer(values: torch.Tensor, repeats: int) -> list[Timing]:
    """One outer step; torch's works in place, ours makes new tensors (the old anchor is kept for joiners)."""
    n = values.numel()
    parameters, momentum = torch.randn(n), torch.randn(n)
    theirs = torch.nn.Parameter(parameters.clone())
    theirs.grad = values.clone()
    sgd = torch.optim.SGD([theirs], lr=0.7, momentum=0.7, nesterov=True)
    return [
        Timing(
            "sparehive outer step",
            seconds(lambda: outer_step(parameters, momentum, values, 0.7, 0.7), repeats) / n * 1e9,
        ),
        Timing("torch SGD, Nesterov", seconds(sgd.step, repeats) / n * 1e9),
    ]


def content(values: torch.Tensor, repeats: int) -> list[Timing]:
    """The root CID of a file of these bytes, and a plain hash of it."""
    data = values.numpy().tobytes()
    n = values.numel()
    return [
        Timing(
            "sparehive UnixFS file",
            seconds(lambda: sum(len(block.data) for block in encode_file(data)[1]), repeats) / n * 1e9,
        ),
        Timing("plain SHA-256", seconds(lambda: hashlib.sha256(data).digest(), repeats) / n * 1e9),
    ]


def table(timings: list[Timing]) -> Table:
    out = Table(title="per fp32 value, one thread", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column("")
    for name in ("encode or\nall, ns", "decode\nns", "size\nbytes", "error"):
        out.add_column(name, justify="right")
    for t in timings:
        cells = [f"{t.encode_ns:.2f}"]
        cells += ["–" if v is None else text.format(v) for v, text in ((t.decode_ns, "{:.2f}"), (t.size, "{:.3f}"))]
        out.add_row(t.what, *cells, "–" if t.error is None else f"{t.error:.4f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__)
    parser.add_argument("--values", type=int, default=4_194_304)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    if min(arguments.values, arguments.repeats) < 1:
        parser.error("--values and --repeats must be at least 1")
    torch.set_num_threads(1)
    values = torch.randn(arguments.values, generator=torch.Generator().manual_seed(0)) * 1e-3
    found: list[Timing] = []
    for measure in (codecs, outer, content):
        found += measure(values, arguments.repeats)
    Console(width=None if sys.stdout.isatty() else 100).print(table(found))
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(timing) for timing in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
