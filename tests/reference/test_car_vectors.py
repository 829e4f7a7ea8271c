"""Our CAR files against the IPFS project's JavaScript writer (committed vector): the same bytes, both ways."""

import base64
import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from swarm.checkpoint.car import CarReader, car_bytes, graph_blocks
from swarm.checkpoint.unixfs import cid_text, encode_file
from tests.reference.test_unixfs_vectors import content

VECTOR: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "car.json").read_text())
CAR = base64.b64decode(VECTOR["car"])


def test_what_javascript_wrote_is_read_whole() -> None:
    reader = CarReader(io.BytesIO(CAR))
    assert [cid_text(*root) for root in reader.roots] == [VECTOR["cid"]]
    found = {block.digest: block.data for block in reader}
    for size in VECTOR["tree"].values():
        _, blocks = encode_file(content(size), VECTOR["chunk"])
        assert all(found[block.digest] == block.data for block in blocks)


def test_we_write_the_bytes_that_javascript_wrote() -> None:
    reader = CarReader(io.BytesIO(CAR))
    (root,) = reader.roots
    blocks = {block.digest: block.data for block in reader}
    assert b"".join(car_bytes(root, graph_blocks(root, blocks.__getitem__))) == CAR


def test_offsets_are_those_of_the_blocks() -> None:
    for block, begin in CarReader(io.BytesIO(CAR)).placed():
        assert sha256(CAR[begin : begin + len(block.data)]).digest() == block.digest


def test_the_writer_that_made_the_vector_is_named() -> None:
    maker = (Path(__file__).parents[1] / "vectors" / "make_car.mjs").read_text()
    for name, version in VECTOR["made_with"].items():
        assert f"{name}@{version}" in maker
