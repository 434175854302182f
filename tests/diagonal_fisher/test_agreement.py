"""Whether a model gives the labels of its data is noted in passing, and said where guessing would do better."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from commonweight import Footprint, fisher
from commonweight.base import UsageError
from commonweight.diagonal_fisher.agreement import beware_of_labels

ROWS = 60


def classifier(classes, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, classes))


def inputs(rows=ROWS):
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(1))


def answered(model, shift, classes):
    """The model's own answers, all moved on by a number of classes: 0 for right labels."""
    with torch.no_grad():
        return (model(inputs()).argmax(1) + shift) % classes


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(
    "options",
    [{}, {"fisher_type": "exact"}, {"fisher_type": "mc"}, {"folds": 3}, {"include": "0"}],
)
def test_rows_whose_label_is_the_models_answer_are_counted_once(classes, options):
    model = classifier(classes)
    labels = torch.where(torch.arange(ROWS) < 25, answered(model, 0, classes), answered(model, 1, classes))
    for size in (1, 7, ROWS):
        batches = list(zip(inputs().split(size), labels.split(size), strict=True))
        found = fisher(model, batches, **options).metadata["agreement"]
        assert found == {"right": 25, "rows": ROWS, "classes": classes}


def test_one_logit_is_a_choice_of_two():
    model = classifier(1)
    labels = (model(inputs()).detach() > 0).float()
    labels[:10] = 1 - labels[:10]
    found = fisher(model, [(inputs(), labels)], loss="multilabel")
    assert found.metadata["agreement"] == {"right": ROWS - 10, "rows": ROWS, "classes": 2}


@pytest.mark.parametrize(
    ("outputs", "labels", "options"),
    [
        (2, torch.zeros(ROWS, 2), {"loss": "regression"}),
        (2, torch.zeros(ROWS, 2), {"loss": "multilabel"}),
        (
            2,
            torch.zeros(ROWS, dtype=torch.long),
            {"loss": lambda o, b: functional.cross_entropy(o, b[1], reduction="none")},
        ),
        (2, None, {"loss": "classification", "fisher_type": "exact"}),
        (2, torch.zeros(ROWS), {"loss": "classification", "fisher_type": "exact"}),
    ],
)
def test_where_labels_are_no_classes_nothing_is_recorded(outputs, labels, options):
    batch = (inputs(), labels) if labels is not None else {"input": inputs()}
    found = fisher(classifier(outputs), [batch], **options)
    assert found.metadata["agreement"] is None
    assert beware_of_labels({"a": found}) == []


@pytest.mark.parametrize(("classes", "shift"), [(2, 1), (3, 1), (3, 2), (5, 3)])
def test_inverted_and_renumbered_labels_are_said_and_right_ones_are_not(classes, shift):
    model = classifier(classes)
    right, wrong = (fisher(model, [(inputs(), answered(model, by, classes))]) for by in (0, shift))
    assert beware_of_labels({"right": right, "wrong": wrong}) == [
        f"The model of wrong gives the label of 0 of {ROWS} rows, and guessing would of {ROWS // classes}: it was "
        "trained on labels that are inverted or numbered otherwise, or on another task"
    ]


@pytest.mark.parametrize(
    ("right", "rows", "classes", "is_said"),
    [
        (50, 100, 2, False),
        (36, 100, 2, False),  # within three standard deviations of 50
        (34, 100, 2, True),
        (0, 9, 2, False),  # so few rows prove nothing
        (0, 10, 2, True),
        (1, 100, 10, False),
        (0, 100, 10, True),
        (0, 100, 100, False),
    ],
)
def test_what_chance_explains_is_not_said(right, rows, classes, is_said):
    facts = {"agreement": {"right": right, "rows": rows, "classes": classes}}
    assert bool(beware_of_labels({"a": Footprint("fisher", {"w": torch.ones(1)}, rows, facts)})) == is_said


def test_it_is_measured_and_not_set_by_hand():
    with pytest.raises(UsageError, match="metadata may not set agreement"):
        fisher(classifier(2), [(inputs(), answered(classifier(2), 0, 2))], metadata={"agreement": None})
