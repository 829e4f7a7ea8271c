"""SIGKILL in the midst of writing: what had left the process is in journal and ledger, and the ledger shows nothing that the journal
lacks."""

import subprocess
import sys
from pathlib import Path

from benchmarks.loop_latency import DOMAIN
from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.notary import JournalNotary, values_of
from peers.remembering import check_journal
from swarm.records.types import ContributionReceipt
from swarm.records.wire import unpack
from tests.process.bookkeeper import messages, script

DRAWS = 10


def test_what_left_a_killed_process_is_in_its_books(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.process.bookkeeper", str(tmp_path), str(DRAWS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    run, kinds, cut = script(), set[str](), 0
    for number in range(DRAWS):
        place = tmp_path / str(number)
        left = [unpack(data) for data in messages((place / "published").read_bytes())]
        with (
            SigningJournal(place / "journal") as journal,
            Ledger(place / "ledger.sqlite", run_id=run.run.run_id, domain=DOMAIN) as ledger,
        ):
            notary = JournalNotary(run.keys[run.me], DOMAIN, journal)
            assert all(signed.signer == run.me for signed in left)
            assert [s.record for s in left if not notary.remembers(s.record)] == [], (
                f"draw {number}: not in the journal"
            )
            receipts = [s for s in left if isinstance(s.record, ContributionReceipt)]
            held = {
                (values["contribution"]) for kind, values in ledger.signed_by(run.me) if kind == "ContributionReceipt"
            }
            lost = [values_of(s.record) for s in receipts if s.record.contribution not in held]
            assert lost == [], f"draw {number}: {len(lost)} of {len(receipts)} published receipts are not in the ledger"
            check_journal(journal.path, notary, ledger, ())
            kinds |= {type(s.record).__name__ for s in left}
            cut += len(journal) > len(left)  # signed, and nobody has seen it
    assert kinds == {"ReducerReport", "Average", "RoundVote", "RoundCertificate", "ContributionReceipt"}
    assert cut, "no kill came while something was on its way"
