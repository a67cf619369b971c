"""The browser that the benchmarks drive."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes import run

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import chromium

# What matplotlib does with the fonts it holds open: 3 and 4 are open here, and no longer behind a fork.
CLOSED_BY_A_FORK = """
import os, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from chromium import chromium

while (held := os.open(os.devnull, os.O_RDONLY)) <= 4:
    pass
os.register_at_fork(after_in_child=lambda: os.closerange(3, 5))
with chromium(Path(sys.argv[2])) as browser:
    print(browser.run("6 * 7"))
"""


@pytest.mark.browser
@pytest.mark.skipif(chromium.find() is None, reason="no Chromium on the path")
def test_it_starts_whatever_becomes_of_the_descriptors_it_needs(tmp_path: Path) -> None:
    done = run("-c", CLOSED_BY_A_FORK, str(Path(chromium.__file__).parent), str(tmp_path / "profile"))
    assert (done.status, done.out.strip()) == (0, "42"), done.err
