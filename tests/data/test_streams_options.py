"""Options of streams as users get them wrong, and what belongs to one task alone."""

import json

import numpy as np
import pytest
import torch

from commonweight import task_stream
from commonweight.base import UsageError
from commonweight.data.images import digits

WRONG = [
    ("rotated", {"angles": "90"}, "angles must be a list, got '90'"),
    ("rotated", {"angles": 45}, "angles must be a list, got 45"),
    ("rotated", {"angles": ["45"]}, "finite numbers of degrees"),
    ("rotated", {"max_angle": None}, "max_angle must lie between 0 and 360, both excluded, got None"),
    ("rotated", {"max_angle": "90"}, "max_angle must lie"),
    ("patch", {"sizes": 3}, "sizes must be a list, got 3"),
    ("patch", {"sizes": [True, 4]}, "sizes must be whole numbers"),
    ("partitioned", {"groups": [1, 2]}, "each group must be a list, got 1"),
    ("partitioned", {"groups": [[0, 1.0, 2, 3, 4], [5, 6, 7, 8, 9]]}, "groups must hold whole numbers"),
    ("partitioned", {"remap_labels": "no"}, "remap_labels must be True or False, got 'no'"),
    ("permuted", {"random_labels": 1}, "random_labels must be a list, got 1"),
    ("permuted", {"random_labels": [True]}, r"random_labels names the tasks \[True\]"),
]


@pytest.mark.parametrize(("scenario", "options", "message"), WRONG)
def test_wrong_options_say_what_was_expected(scenario, options, message):
    with pytest.raises(UsageError, match=message):
        task_stream(digits(), scenario, **options)


def test_a_stream_is_made_of_images():
    with pytest.raises(UsageError, match=r"images must be Images, got str; open them with open_images"):
        task_stream("digits")


def test_numbers_of_numpy_are_numbers():
    plain = task_stream(digits(), "patch", tasks=2, sizes=[2, 4], random_labels=[1])
    other = task_stream(
        digits(), "patch", tasks=np.int64(2), sizes=np.array([2, 4]), random_labels=np.array([1]), seed=np.int64(0)
    )
    assert json.dumps(other.facts) == json.dumps(plain.facts)
    assert task_stream(digits(), "partitioned", groups=np.arange(10).reshape(5, 2)).names[1] == "1-classes2-3"


def test_labels_that_are_changed_in_one_task_stay_in_the_others():
    stream = task_stream(digits(), "permuted", tasks=2)
    before = stream[1].train.labels.clone()
    stream[0].train.labels.add_(10)
    assert torch.equal(stream[1].train.labels, before)
    assert torch.equal(stream[0].train.labels, before)
    assert torch.equal(stream.images.train_labels, before)
