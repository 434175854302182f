"""The committed tables of the reproductions follow from the committed JSON."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "reproductions"
FROM_A_RUN = {"fuse_to_forget"}
"""Its report reads the overlap tables of the run, 35 Fishers a seed, which are not committed."""

NAMES = sorted({each.stem for each in (PLACE / "results").glob("*.md")} - FROM_A_RUN)


@pytest.fixture(scope="session")
def copied(tmp_path_factory):
    place = tmp_path_factory.mktemp("again") / "reproductions"
    shutil.copytree(PLACE, place, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.mark.parametrize("name", NAMES)
def test_tables_follow_from_the_record(copied, name, monkeypatch, capsys):
    written = copied / "results" / f"{name}.md"
    committed = written.read_text(encoding="utf-8")
    written.unlink()
    known = set(sys.modules)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--tables"])
    monkeypatch.syspath_prepend(copied)
    try:
        runpy.run_path(str(copied / f"{name}.py"), run_name="__main__")
    finally:
        for module in set(sys.modules) - known:
            if str(copied) in str(getattr(sys.modules[module], "__file__", "")):
                del sys.modules[module]
    command = f"python reproductions/{name}.py --tables"
    assert written.read_text(encoding="utf-8") == committed, f"words or numbers changed: {command}"
