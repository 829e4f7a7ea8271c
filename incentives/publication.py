"""The directory of published tables: one file per period, found by the hash that is on chain, and its evidence.

Any copy of the directory is as good as another, for nothing in it is believed: the tables have the hash that the chain
holds, and each signature in the evidence (a file beside the tables, four times their size) hashes into a leaf of them.
"""

from pathlib import Path
from typing import BinaryIO

from incentives.atomic import write_atomically
from incentives.errors import InputError, StorageError, TamperedError, disk_remedy
from incentives.evidence import Evidence, evidence_chunks, read_evidence
from incentives.merkle import Tree
from incentives.shelf import MAX_EVIDENCE_BYTES, MAX_TABLES_BYTES, Shelf, lies_there, opened, others, read
from incentives.tables import (
    RECEIPTS_BEGIN,
    PayoutRow,
    Tables,
    parse_payouts,
    parse_tables,
    signatures_hash,
    tables_hash,
    tree_of,
)


def tables_path(directory: Path, number: int) -> Path:
    return directory / f"period-{number}.json"


def evidence_path(directory: Path, number: int) -> Path:
    return directory / f"evidence-{number}.json"


def publish(directory: Path, number: int, tables: Tables, evidence: Evidence) -> Path:
    """Writes both files of period `number`, each whole or not at all, and on disk when this returns. Returns the
    tables' path.

    Other tables that stand there are kept under a name with their hash: they may be those that the chain holds, for
    the proposal that is to replace them can still fail."""
    path = tables_path(directory, number)
    for target in (path, evidence_path(directory, number)):
        if target.is_dir():  # found before either is written
            raise StorageError(f"{target} is a folder, where a file is to be written: move it away")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stands = tables_hash(path.read_bytes()) if path.is_file() else None
        if stands is not None and stands != tables.hash():
            _keep(directory, number, stands)
        write_atomically(evidence_path(directory, number), evidence_chunks(evidence))
        write_atomically(path, tables.chunks())
    except OSError as error:
        where = error.filename2 or error.filename or directory
        raise StorageError(
            f"{where}: {error.strerror}: {disk_remedy(error)}, or choose another --tables directory"
        ) from None
    return path


def find_tables(shelf: Shelf, hash_: bytes, number: int) -> Tables:
    """The tables with that hash, in a folder whatever their file is called. InputError where there are none."""
    name = tables_path(Path(), number).name
    is_there = False
    for each in (name, *others(shelf, "")):
        try:
            data = read(shelf, each, MAX_TABLES_BYTES)
        except StorageError:
            if each == name:
                raise
            continue  # somebody else's file
        is_there = is_there or (each == name and data is not None)
        if data is not None and tables_hash(data) == hash_:
            return parse_tables(data)
    raise _not_found(shelf, number, hash_, is_there)


def find_payouts(shelf: Shelf, number: int, root: bytes, hash_: bytes) -> tuple[tuple[PayoutRow, ...], Tree]:
    """The payout rows of the tables with that root, and their tree: all that a claim takes. Nothing beyond them is read of a
    folder's file. Errors as `find_tables`."""
    name = tables_path(Path(), number).name
    is_there = False
    for each in (name, *others(shelf, "")):
        try:
            with opened(shelf, each, MAX_TABLES_BYTES) as stream:
                if stream is None:
                    continue
                is_there = is_there or each == name
                rows = parse_payouts(_up_to_receipts(stream))
        except StorageError:
            if each == name:
                raise
            continue  # somebody else's file
        except TamperedError:
            continue
        tree = tree_of(rows)
        if tree.root == root:
            return rows, tree
    raise _not_found(shelf, number, hash_, is_there)


def _up_to_receipts(stream: BinaryIO) -> bytes:
    held = bytearray()
    while block := stream.read(1 << 20):
        seen = max(0, len(held) - len(RECEIPTS_BEGIN))
        held += block
        if RECEIPTS_BEGIN in held[seen:]:
            break
    return bytes(held)


def _not_found(shelf: Shelf, number: int, hash_: bytes, is_there: bool) -> InputError | TamperedError:
    name = tables_path(Path(), number).name
    if is_there:
        return TamperedError(
            f"{shelf}/{name} does not have the hash that is on chain (0x{hash_.hex()}): it was changed or is old; "
            "get it again"
        )
    return InputError(
        "--tables",
        str(shelf),
        f"holds no tables of period {number} ({name}{lies_there(shelf, name)}, hash 0x{hash_.hex()}): get them from the organiser",
    )


def find_evidence(shelf: Shelf, number: int, tables: Tables) -> Evidence | None:
    """The evidence beside the tables, None where there is none. TamperedError where it does not fit the tables."""
    name = evidence_path(Path(), number).name
    problem: TamperedError | None = None
    is_there = False
    for each in (name, *others(shelf, f"evidence-{number}-")):
        try:
            with opened(shelf, each, MAX_EVIDENCE_BYTES) as stream:
                if stream is None:
                    continue
                is_there = is_there or each == name
                return _fitting(read_evidence(stream), tables)
        except StorageError:
            if each == name:
                raise
        except TamperedError as error:
            problem = problem or TamperedError(f"{shelf}/{name}: {error}; get it again")
    if problem is not None and is_there:
        raise problem
    return None


def _fitting(evidence: Evidence, tables: Tables) -> Evidence:
    if len(evidence.receipts) != len(tables.receipts) or any(
        (receipt.hash, signatures_hash(signature for _, signature in receipt.signatures))
        != (row.receipt, row.signatures)
        for receipt, row in zip(evidence.receipts, tables.receipts, strict=True)
    ):
        raise TamperedError("its receipts or their signatures are not those of the tables")
    identities = [c.id for c in evidence.certificates]
    if len(identities) == len(tables.certificates) + 1 and evidence.certificates[1:]:
        identities = identities[1:] if identities[0] == evidence.certificates[1].prev else []
    if identities != [row.certificate for row in tables.certificates]:
        raise TamperedError("its certificates are not those of the tables")
    return evidence


def _keep(directory: Path, number: int, hash_: bytes) -> None:
    """Both files of the period under names of their own, which `find_tables` and `find_evidence` look at too."""
    for path in (evidence_path(directory, number), tables_path(directory, number)):
        kept = path.with_name(f"{path.stem}-{hash_.hex()[:16]}.json")
        if path.is_file() and not kept.exists():
            write_atomically(kept, path.read_bytes())


__all__ = ["evidence_path", "find_evidence", "find_payouts", "find_tables", "publish", "tables_path"]
