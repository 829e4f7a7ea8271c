"""The directory of published tables: one file per period, found by the hash that is on chain, and its evidence.

Any copy of the directory is as good as another, for nothing in it is believed: the tables have the hash that the chain
holds, and each signature in the evidence (a file beside the tables, four times their size) hashes into a leaf of them.
"""

from collections.abc import Iterator
from pathlib import Path

from incentives.atomic import write_atomically
from incentives.errors import InputError, StorageError, TamperedError, disk_remedy
from incentives.evidence import Evidence, evidence_bytes, parse_evidence
from incentives.shelf import MAX_EVIDENCE_BYTES, MAX_TABLES_BYTES, Shelf, lies_there, others, read
from incentives.tables import Tables, parse_tables, signatures_hash, tables_hash


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
    data = tables.to_bytes()
    for target in (path, evidence_path(directory, number)):
        if target.is_dir():  # found before either is written
            raise StorageError(f"{target} is a folder, where a file is to be written: move it away")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.read_bytes() != data:
            _keep(directory, number, tables_hash(path.read_bytes()))
        write_atomically(evidence_path(directory, number), evidence_bytes(evidence))
        write_atomically(path, data)
    except OSError as error:
        where = error.filename2 or error.filename or directory
        raise StorageError(
            f"{where}: {error.strerror}: {disk_remedy(error)}, or choose another --tables directory"
        ) from None
    return path


def find_tables(shelf: Shelf, hash_: bytes, number: int) -> Tables:
    """The tables with that hash, in a folder whatever their file is called. InputError where there are none."""
    name = tables_path(Path(), number).name
    named = read(shelf, name, MAX_TABLES_BYTES)
    for data in _one_by_one(named, others(shelf, "", MAX_TABLES_BYTES)):
        if tables_hash(data) == hash_:
            return parse_tables(data)
    if named is not None:
        raise TamperedError(
            f"{shelf}/{name} does not have the hash that is on chain (0x{hash_.hex()}): it was changed or is old; "
            "get it again"
        )
    raise InputError(
        "--tables",
        str(shelf),
        f"holds no tables of period {number} ({name}{lies_there(shelf, name)}, hash 0x{hash_.hex()}): get them from the organiser",
    )


def find_evidence(shelf: Shelf, number: int, tables: Tables) -> Evidence | None:
    """The evidence beside the tables, None where there is none. TamperedError where it does not fit the tables."""
    name = evidence_path(Path(), number).name
    named = read(shelf, name, MAX_EVIDENCE_BYTES)
    problem: TamperedError | None = None
    for data in _one_by_one(named, others(shelf, f"evidence-{number}-", MAX_EVIDENCE_BYTES)):
        try:
            return _fitting(parse_evidence(data), tables)
        except TamperedError as error:
            problem = problem or TamperedError(f"{shelf}/{name}: {error}; get it again")
    if problem is not None and named is not None:
        raise problem
    return None


def _fitting(evidence: Evidence, tables: Tables) -> Evidence:
    receipts = [(r.hash, signatures_hash(signature for _, signature in r.signatures)) for r in evidence.receipts]
    if receipts != [(row.receipt, row.signatures) for row in tables.receipts]:
        raise TamperedError("its receipts or their signatures are not those of the tables")
    identities = [c.id for c in evidence.certificates]
    if len(identities) == len(tables.certificates) + 1 and evidence.certificates[1:]:
        identities = identities[1:] if identities[0] == evidence.certificates[1].prev else []
    if identities != [row.certificate for row in tables.certificates]:
        raise TamperedError("its certificates are not those of the tables")
    return evidence


def _one_by_one(first: bytes | None, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first is not None:
        yield first
    yield from rest


def _keep(directory: Path, number: int, hash_: bytes) -> None:
    """Both files of the period under names of their own, which `find_tables` and `find_evidence` look at too."""
    for path in (evidence_path(directory, number), tables_path(directory, number)):
        kept = path.with_name(f"{path.stem}-{hash_.hex()[:16]}.json")
        if path.is_file() and not kept.exists():
            write_atomically(kept, path.read_bytes())


__all__ = ["evidence_path", "find_evidence", "find_tables", "publish", "tables_path"]
