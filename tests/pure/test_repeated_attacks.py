"""What the table of repeated attacks counts as held."""

from pathlib import Path

from tests.hostile.repeat import results_of, table

REPORT = """<testsuites><testsuite>
<testcase classname="tests.hostile.test_a" name="held" time="1.0"/>
<testcase classname="tests.hostile.test_a" name="broken" time="2.0"><failure message="x"/></testcase>
<testcase classname="tests.hostile.test_a" name="skipped" time="0.0"><skipped message="x"/></testcase>
<testcase classname="tests.hostile.test_a" name="left_badly" time="3.0"><error message="x"/></testcase>
<testcase classname="tests.hostile.test_a" name="left_badly" time="4.0"/>
</testsuite></testsuites>"""


def test_what_failed_at_any_point_or_was_skipped_is_not_held(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    found = results_of(report)
    assert found == {"test_a::held": (True, 1.0), "test_a::broken": (False, 2.0), "test_a::left_badly": (False, 7.0)}
    rows = table({name: [each, (True, 5.0)] for name, each in found.items()}, [0, 1], 1.0)
    assert "| `test_a::held` | 2 of 2 | 3, 5 |" in rows
    assert "| `test_a::broken` | 1 of 2 | 4, 5 |" in rows
