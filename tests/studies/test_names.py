"""Names of models and data: given ones stay, others are told apart, and those of an earlier call are kept."""

import pytest

from commonweight.base import UsageError
from commonweight.studies.compare.names import keep_names, name_models, named_data, split_name


def names(*given, checkpoints=()):
    return [(model.name, model.checkpoint) for model in name_models(given, checkpoints)]


def test_one_function_with_several_checkpoints():
    assert names("m:f", "m:f", checkpoints=("a.safetensors", "b.safetensors")) == [
        ("a", "a.safetensors"),
        ("b", "b.safetensors"),
    ]
    assert names("x=m:f", "y=m:f", checkpoints=("a.safetensors", "b.safetensors")) == [
        ("x", "a.safetensors"),
        ("y", "b.safetensors"),
    ]
    with pytest.raises(UsageError, match=r"'m:f' is given twice with a\.safetensors"):
        names("m:f", "m:f", checkpoints=("a.safetensors", "a.safetensors"))
    with pytest.raises(UsageError, match="1 checkpoints for 2 module:function models"):
        names("m:f", "m:g", checkpoints=("a.safetensors",))


def test_an_equals_sign_in_a_path_or_id_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    assert split_name("lr=0.1") == (None, "lr=0.1")
    assert split_name("best=lr=0.1") == ("best", "lr=0.1")
    assert split_name("runs/lr=0.1") == (None, "runs/lr=0.1")
    assert split_name("org/m@a=b") == (None, "org/m@a=b")
    assert split_name("=x") == (None, "=x")
    assert names("films=org/a", "org/b") == [("films", None), ("b", None)]
    for bad in ("..=x", ".=x", "a/b=x"):
        assert split_name(bad) == (None, bad)


def test_given_names_stay_and_others_move():
    assert names("b=org/a", "other/b") == [("b", None), ("other-b", None)]
    with pytest.raises(UsageError, match="2 models are called 'x'"):
        names("x=org/a", "x=org/b")


def test_a_hidden_file_gives_no_hidden_folder(tmp_path):
    (tmp_path / ".rows.tsv").write_text("")
    assert named_data([str(tmp_path / ".rows.tsv")])[0][0] == "rows"


def test_models_of_an_earlier_call_keep_their_names():
    former = {"final": {"weights": "1"}}
    models = name_models(["runs/films/final", "runs/food/final"])
    assert [m.name for m in models] == ["films-final", "food-final"]
    found = keep_names(models, [{"weights": "1"}, {"weights": "2"}], former)
    assert found == ["final", "food-final"]
    later = {"final": {"weights": "1"}, "food-final": {"weights": "2"}}
    assert keep_names(models, [{"weights": "1"}, {"weights": "2"}], later) == found
    assert keep_names(models, [{"weights": "3"}, {"weights": "2"}], later) == ["films-final", "food-final"]


def test_a_given_name_is_not_changed_for_a_former_one():
    models = name_models(["mine=org/a", "org/b"])
    assert keep_names(models, [{"w": 1}, {"w": 2}], {"old": {"w": 1}, "mine": {"w": 9}}) == ["mine", "b"]


def test_a_former_name_is_not_given_twice():
    models = name_models(["x/final", "org/final2"])
    assert keep_names(models, [{"w": 5}, {"w": 1}], {"final": {"w": 1}}) == ["final-2", "final"]
