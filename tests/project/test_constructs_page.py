"""docs/constructs.md names a test on every line, and each exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_line_of_the_table_has_its_test():
    page = (ROOT / "docs" / "constructs.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| (?!construct |-)", line)]
    assert len(rows) > 60
    for row in rows:
        cells = re.findall(r"(\w+\.py): ((?:`[^`]+`(?:, )?)+)", row.split(" | ")[-1])
        assert cells, row
        for file, names in cells:
            (path,) = (ROOT / "tests").rglob(file)
            text = path.read_text()
            for name in re.findall("`([^`]+)`", names):
                name = re.escape(name)
                assert re.search(rf'def {name}\(|\b{name} ?=|"{name}"', text), f"{file}: {name}"
