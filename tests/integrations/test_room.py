"""The room itself: light to import, its names all there and documented."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from commonweight import integrations


def test_the_import_brings_no_library():
    heavy = "{'torch', 'transformers', 'huggingface_hub', 'accelerate', 'avalanche', 'tensorboard'}"
    program = f"import sys, commonweight.integrations as room; dir(room); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", integrations.__all__)
def test_every_name_is_there_and_its_arguments_are_documented(name):
    found = getattr(integrations, name)
    assert found.__name__ == name
    assert "Example:" in found.__doc__
    if name != "EarlierTask":  # its fields have docstrings of their own
        for argument in inspect.signature(found).parameters:
            assert f"{argument}: " in found.__doc__, argument


def test_names_are_listed_once():
    assert sorted(integrations._HOME) == sorted(integrations.__all__) == sorted(dir(integrations))
    with pytest.raises(AttributeError, match=r"module 'commonweight\.integrations' has no attribute 'Trainer'"):
        integrations.Trainer  # noqa: B018
