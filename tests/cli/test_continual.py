"""``commonweight continual``: from a command line to a run folder, and mistakes that are explained."""

from __future__ import annotations

import json

import pytest

SMALL = (
    *("continual", "run", "--data", "digits", "--tasks", "2", "--hidden", "8", "6", "--rows", "100"),
    *("--inference-rows", "4", "--inference-batches", "2", "4"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("continual") / "run"


def test_a_run_and_its_footprints(cli, run):
    found = cli(
        *SMALL, "--scenario", "rotated", "--approach", "classic", "transfer-random", "--inference", "one_shot",
        "lowest_entropy", "-o", run,
    )  # fmt: skip
    assert found.code == 0, found.err
    assert found.out.startswith("Does a similar prior task help the next one, and do tasks share weights?")
    assert "transfer-random" in found.out
    assert "seed 0, classic: learned" in found.err
    assert f"figures are in {run}" in found.err
    study = json.loads((run / "study.json").read_text())
    assert list(study["approaches"]) == ["classic", "transfer-random"]
    assert study["plan"]["hidden"] == [8, 6]
    assert "# " not in (run / "study.md").read_text().splitlines()[0]
    for name in ("curves", "gains", "accuracy", "masks", "overlap-classic", "similarity-classic"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 1000
        assert (run / "figures" / f"{name}.pdf").is_file()
    assert f"the report is {run}/report.html" in found.err
    assert "report.html shows all of it in a browser" in " ".join(found.out.split())
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in ("masks of classic", "Learning curves", "Masks of one layer", "hidden"):
        assert words in page
    names = {path.name for path in (run / "figures").iterdir()}
    drawn = cli("figures", run, "-o", run.parent / "again")
    assert {path.name for path in (run.parent / "again").iterdir()} == names, drawn.err
    assert all((run.parent / "again" / name).read_bytes() == (run / "figures" / name).read_bytes() for name in names)
    again = cli("report", run)
    assert (again.code, again.out) == (0, f"{run}/report.html\n")
    masks = sorted((run / "seed-0" / "classic" / "masks").iterdir())
    table = cli("overlap", *masks)
    assert table.code == 0, table.err
    assert "jaccard" in table.out.lower()
    activity = sorted((run / "seed-0" / "classic" / "activity").iterdir())
    assert cli("overlap", *activity).code == 0


def test_another_plan_is_refused_and_more_approaches_are_not(cli, run):
    refused = cli(*SMALL, "--scenario", "permuted", "-o", run)
    assert (refused.code, refused.out) == (2, "")
    assert "scenario was 'rotated', is now 'permuted'" in refused.err
    grown = cli(
        *SMALL, "--scenario", "rotated", "--approach=initialised-probed", "--inference", "one_shot", "lowest_entropy",
        "-o", run,
    )  # fmt: skip
    assert grown.code == 0, grown.err
    assert "transfer-random" in grown.out
    assert "seed 0, classic" not in grown.err  # it was there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "roteted"], "Did you mean 'rotated'?"),
        ([], "Missing option '--scenario'"),
        (["--scenario", "rotated", "--approach", "clasic"], "transfer, initialised; did you mean 'classic'?"),
        (["--scenario", "rotated", "--rows", "99999"], "expected the 99999 asked for; give a smaller --rows"),
        (["--scenario", "permuted", "--max-angle", "90"], "--max-angle is for the scenario rotated, got permuted"),
        (["--scenario", "permuted", "--order", "given"], "--order is for the scenarios rotated, partitioned and patch"),
        (["--scenario", "rotated", "--remap-labels"], "--remap-labels is for the scenario partitioned"),
        (["--scenario", "rotated", "--approach", "classic", "--beta", "0.4"], "--beta is for transfer and initialised"),
        (["--scenario", "rotated", "--tasks", "1"], "--tasks is 1, so transfer has no prior task"),
        (["--scenario", "rotated", "--inference", "none"], "--inference-rows is for inferring the task"),
        (["--scenario", "rotated", "--model", "nothing_there:build"], "--hidden is for the perceptron"),
        (["--scenario", "rotated", "--approach", "classic", "transfer-radnom"], "did you mean 'random'?"),
        (["--scenario", "partitioned", "--tasks", "6"], "10 classes"),
        (["--scenario", "rotated", "--seeds", "0"], "'0' is not a whole number of at least 1"),
        (["--scenario", "rotated", "--hidden", "many"], "'many' is not a whole number of at least 1"),
        (["--scenario", "rotated", "--beta", "1"], "--beta must be at least 0 and below 1"),
        (["--scenario", "rotated", "--density", "2"], "--density must be above 0 and at most 1"),
        (["--scenario", "rotated", "--device", "abacus"], "--device must be"),
        (
            ["--scenario", "rotated", "--hidden", "300 300", "--model", "nothing_there:build"],
            "no Python module 'nothing_there'",
        ),
        (["--scenario", "rotated", "--inference-rows", "3"], "at least one batch of 4"),
        (["--scenario", "rotated", "--random-labels", "0", "7"], "--random-labels names the tasks [7]"),
    ],
)
def test_mistakes_are_explained(cli, tmp_path, arguments, message):
    found = cli(*SMALL, *arguments, "-o", tmp_path / "run")
    assert (found.code, found.out) == (2, "")
    assert message in " ".join(found.err.split())
    assert "Traceback" not in found.err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(cli, tmp_path):
    words = (*SMALL, "--scenario", "rotated", "--approach", "classic", "transfer", "--batch-size", "30", "--dry-run")
    found = cli(*words, "--seeds", "2", "-o", tmp_path / "run")
    assert found.code == 0, found.err
    lines = [line.split() for line in found.out.splitlines()]
    (transfer,) = [line for line in lines if line[:1] == ["transfer"]]
    assert transfer[1:4] == ["8", "16", "16"]  # two tasks of 100 images
    assert ["optimiser", "steps", "that", "are", "missing", "32"] in lines
    assert "Nothing was measured or written (--dry-run)" in " ".join(found.out.split())
    assert list(tmp_path.iterdir()) == []
    refused = cli(*words, "--rows", "99999", "-o", tmp_path / "run")
    assert (refused.code, refused.out) == (2, "")
    assert "give a smaller --rows" in refused.err


def test_the_words_of_the_help_are_those_there_are(cli):
    words = " ".join(cli("continual", "run", "--help").out.split())
    assert "Any of classic, classic-double, transfer, initialised;" in words
    assert "[permuted|rotated|partitioned|patch]" in words
    assert "one_shot binary lowest_entropy nearest_statistics" in words


def test_bits_of_masks_are_switched_off_when_asked(cli, tmp_path):
    run = tmp_path / "run"
    asked = (*SMALL[:-5], "--inference", "none", "--scenario", "rotated", "--approach", "classic")
    planned = cli(*asked, "--localise", "--dry-run", "-o", run)
    assert "masks with bits switched off, each scored twice" in " ".join(planned.out.split()), planned.err
    found = cli(*asked, "--localise", "-o", run)
    assert found.code == 0, found.err
    assert "switched off, the bits in common cost more" in " ".join(found.out.split())
    localised = json.loads((run / "study.json").read_text())["localised"]
    assert len(localised["verdicts"]) == 5
    assert len(localised["cells"]) == 2 * 7 * 2 * 2
    for place in ("study.md", "report.html"):
        assert "Bits of a mask switched off: accuracy" in (run / place).read_text(encoding="utf-8")
    alone = cli("continual", "run", "--data", "digits", "--tasks", "1", "--scenario", "rotated", "--approach",
                "classic", "--localise", "-o", tmp_path / "alone")  # fmt: skip
    assert (alone.code, alone.out) == (2, "")
    assert "--localise compares the masks of two tasks, got one" in alone.err
