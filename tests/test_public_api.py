"""The public names, and how light they are to import."""

from __future__ import annotations

import inspect
import pkgutil
import re
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from torch import nn

import commonweight
from commonweight.base import UsageError
from commonweight.overlaps import overlap_over_seeds
from commonweight.transfer import alphas_for

PUBLIC = [
    "CommonweightError",
    "Estimate",
    "Footprint",
    "OverlapTable",
    "SupermaskNetwork",
    "Verdict",
    "activity_footprint",
    "adam_footprint",
    "change_footprint",
    "cosine_similarity",
    "every_layer_similarity",
    "ewc_penalty",
    "first_layer_similarity",
    "fisher",
    "fisher_overlap",
    "fuse",
    "fuse_checkpoints",
    "infer_task",
    "jaccard_index",
    "localise",
    "merge_check",
    "open_images",
    "overlap",
    "probed_similarity",
    "saliency_footprint",
    "supermask_footprint",
    "task_similarity",
    "task_stream",
    "transfer_alphas",
    "verify",
]


def run(program):
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)


def test_the_public_names():
    assert commonweight.__all__ == PUBLIC
    assert dir(commonweight) == PUBLIC
    assert sorted(commonweight._HOME) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    found = getattr(commonweight, name)
    assert found.__name__ == name
    assert found.__module__ == f"commonweight.{commonweight._HOME[name]}"
    assert inspect.getdoc(found)
    assert found.__doc__ is not None
    assert found.__doc__ is not found.__base__.__doc__ if inspect.isclass(found) else len(found.__doc__) > 100


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isfunction(getattr(commonweight, name))])
def test_every_argument_is_documented(name):
    found = getattr(commonweight, name)
    assert inspect.signature(found).parameters
    for argument in inspect.signature(found).parameters:
        assert re.search(rf"\n        \**{argument}: ", found.__doc__), argument


def test_no_public_name_is_hidden_by_a_module_of_the_same_name():
    """Importing a submodule sets an attribute of the package."""
    assert not set(PUBLIC) & {module.name for module in pkgutil.iter_modules(commonweight.__path__)}
    program = (
        "import commonweight, inspect\n"
        "first = [getattr(commonweight, name) for name in commonweight.__all__]\n"
        "again = [getattr(commonweight, name) for name in commonweight.__all__]\n"
        "print(all(a is b for a, b in zip(first, again)), any(map(inspect.ismodule, again)))"
    )
    assert run(program).stdout == "True False\n"


def test_a_star_import_brings_the_public_names_only():
    space = {}
    exec("from commonweight import *", space)
    assert sorted(set(space) - {"__builtins__"}) == PUBLIC


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'commonweight' has no attribute 'Fisher'"):
        commonweight.Fisher  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Fisher'"):
        from commonweight import Fisher  # noqa: F401
    assert not hasattr(commonweight, "numpy")


def test_the_import_is_light():
    heavy = "{'torch', 'numpy', 'pandas', 'transformers', 'datasets', 'safetensors', 'tqdm', 'rich', 'click'}"
    shown = run(f"import sys, commonweight; dir(commonweight); print(sorted({heavy} & set(sys.modules)))")
    assert (shown.stdout, shown.stderr) == ("[]\n", "")
    used = run(f"import sys, commonweight; commonweight.fisher; print(sorted({heavy} & set(sys.modules)))")
    assert "'torch'" in used.stdout
    assert "transformers" not in used.stdout
    assert used.stderr == ""


def test_the_version():
    assert commonweight.__version__.count(".") == 2
    assert all(part.isdigit() for part in commonweight.__version__.split("."))


# Calls with something else


@pytest.fixture(scope="module")
def things():
    """What public functions take, and what users give them instead."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    net = commonweight.SupermaskNetwork(model)
    for task in "ab":
        net.add_task(task)
        net.reestimate(task, [torch.randn(8, 4)])
    plain = nn.Linear(4, 2)
    fishers = {name: commonweight.fisher(plain, [(torch.randn(6, 4), torch.arange(6) % 2)]) for name in "ab"}
    activities = {task: commonweight.activity_footprint(net, task) for task in "ab"}
    return {
        "model": model,
        "net": net,
        "f": fishers["a"],
        "fishers": fishers,
        "activities": activities,
        "means": {task: torch.rand(3) for task in "ab"},
        "by_layer": {task: {"bn1": torch.rand(3)} for task in "ab"},
        "table": commonweight.overlap(fishers),
        "similarity": commonweight.first_layer_similarity(activities),
        "estimate": commonweight.Estimate(0.1, (0.1, 0.2), "seeds"),
        "x": torch.randn(8, 4),
        "array": np.zeros((3, 4, 4)),
        "rows": torch.utils.data.TensorDataset(torch.zeros(3, 1, 4, 4), torch.arange(3)),
        "saved": datasets.DatasetDict({"train": datasets.Dataset.from_dict({"label": [0, 1]})}),
    }


NAME_THEM = r"expected a mapping of names to footprints, such as \{'a': f_a, 'b': f_b\}, got .*; name the footprints"
MAKE_ONE = r"must be a Footprint, got (Tensor|dict|ndarray); make one with activity_footprint\(net, task\), or of means"
NET = "net must be a SupermaskNetwork, got .*; make one with SupermaskNetwork"
IMAGES = r"expected 'digits', a folder, .* got \w+; save a DatasetDict .*Images\.of"
TABLE = r"table must be an? \w+, got \w+; compute one with"
PATTERNS = "clude must be a list of texts, such as .* got"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("overlap(f, f)", NAME_THEM),
        ("overlap(f)", NAME_THEM),
        ("overlap([f, f])", NAME_THEM),
        ("overlap(fishers, fishers)", NAME_THEM),
        ("overlap(means)", "must be a Footprint, got Tensor; measure one"),
        ("first_layer_similarity(activities['a'], activities['b'])", NAME_THEM),
        ("every_layer_similarity(*activities.values())", NAME_THEM),
        ("first_layer_similarity(means)", MAKE_ONE),
        ("every_layer_similarity(by_layer)", MAKE_ONE),
        ("first_layer_similarity({'a': array, 'b': array})", MAKE_ONE),
        ("overlap_over_seeds(activities, activities, activities)", "expected a list of trainings, .* one list"),
        ("overlap_over_seeds(activities)", "expected a list of trainings, .* got dict"),
        ("overlap_over_seeds(3)", "expected a list of trainings, .* got int"),
        ("Footprint('activity', {0: x}, 0)", r"named by text, such as 'fc\.weight', got 0"),
        ("Footprint('activity', {('fc', 'weight'): x}, 0)", r"named by text, .* got \('fc', 'weight'\)"),
        ("Footprint('activity', {None: x, 'b': x}, 0)", "named by text, .* got None"),
        ("Footprint('activity', x, 0)", "holds tensors by parameter name, .* got Tensor"),
        ("Footprint('activity', [x], 0)", "holds tensors by parameter name, .* got list"),
        ("Footprint('activity', {'bn': array}, 0)", "'bn' of a footprint must be a Tensor, got ndarray; make it one"),
        ("Footprint('activity', {'bn': [1.0, 2.0]}, 0)", "'bn' of a footprint must be a Tensor, got list"),
        ("Footprint('fisher', by_layer, 0)", "'a' of a footprint must be a Tensor, got dict"),
        ("open_images(rows)", IMAGES),
        ("open_images(saved)", IMAGES),
        ("open_images(array)", IMAGES),
        ("open_images(None)", IMAGES),
        ("open_images(open_images('digits'))", IMAGES),
        ("activity_footprint(model, 'a')", NET),
        ("supermask_footprint(model, 'a')", NET),
        ("probed_similarity(model, {'c': [x]})", NET),
        ("infer_task(model, x)", NET),
        ("alphas_for(model, transfer_alphas(similarity, 'b'), x)", NET),
        ("infer_task(net, [(x, x)])", "inputs must be a Tensor, got list"),
        ("alphas_for(net, similarity, x)", "alphas must be a Alphas, got TaskSimilarity; choose them"),
        ("transfer_alphas(table, 'b')", TABLE),
        ("transfer_alphas(means, 'b')", TABLE),
        ("table.verdict('ab')", "expected pairs of two names each"),
        ("table.verdict(None, ('a', 'b'), same_rows=True)", "expected pairs of two names each"),
        ("table.verdict({'a': 1, 'b': 2}, ('a', 'b'), same_rows=True)", "expected pairs of two names each"),
        ("ewc_penalty(f, f, means)", "model must be a Module, got Footprint"),
        ("SupermaskNetwork(model, exclude=[0])", PATTERNS),
        ("SupermaskNetwork(model, include=3)", PATTERNS),
        ("SupermaskNetwork(model, exclude=[model[0].weight])", PATTERNS),
    ],
)
def test_an_obvious_wrong_call_is_refused_in_a_sentence(things, call, message):
    public = {name: getattr(commonweight, name) for name in commonweight.__all__}
    public |= {"alphas_for": alphas_for, "overlap_over_seeds": overlap_over_seeds}
    with pytest.raises(UsageError, match=message):
        eval(call, public | things)
