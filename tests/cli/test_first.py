"""What is refused before a model is read."""

import pytest


@pytest.mark.parametrize("command", ["fisher", "compare", "verify"])
def test_a_column_that_is_not_there(cli, place, tmp_path, monkeypatch, command):
    def load(*_, **__):
        raise AssertionError("a model was read")

    monkeypatch.setattr("commonweight.models.load.load_model", load)
    monkeypatch.setattr("commonweight.studies.compare.checks.load_model", load)
    models = [place / "one", place / "two"] if command == "compare" else [place / "one"]
    output = [] if command == "verify" else ["-o", tmp_path / "x"]
    found = cli(command, *models, "--data", place / "films.jsonl", "--label-column", "nope", *output)
    assert (found.code, found.out) == (2, "")
    assert "--label-column 'nope' is no column of films; there are" in found.err
    assert not (tmp_path / "x").exists()
