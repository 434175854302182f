"""The public names, and how light they are to import."""

from __future__ import annotations

import inspect
import pkgutil
import re
import subprocess
import sys

import pytest

import commonweight

PUBLIC = [
    "Alphas",
    "CommonweightError",
    "CustomLoss",
    "Estimate",
    "FoldSorted",
    "Footprint",
    "IntegrityError",
    "MeasurementError",
    "NotComparableError",
    "OverlapTable",
    "SeedOverlap",
    "SupermaskNetwork",
    "TaskSimilarity",
    "Threshold",
    "TopK",
    "UsageError",
    "Verdict",
    "Verification",
    "activity_footprint",
    "alphas_for",
    "contrast_verdict",
    "cosine_similarity",
    "every_layer_similarity",
    "ewc_penalty",
    "first_layer_similarity",
    "fisher",
    "fisher_overlap",
    "fuse",
    "infer_task",
    "jaccard_index",
    "layers_verdict",
    "null_verdict",
    "open_images",
    "overlap",
    "overlap_over_seeds",
    "overlap_verdict",
    "pairs_verdict",
    "probed_similarity",
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
