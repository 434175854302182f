"""What the package offers, and how light it is to import."""

import inspect
import subprocess
import sys

import pytest

from commonweight.data import shortcuts


@pytest.mark.parametrize("name", shortcuts.__all__)
def test_every_name_is_there_and_documented(name):
    found = getattr(shortcuts, name)
    if name != "RULES":
        assert found.__name__ == name
        assert inspect.getdoc(found)
    if inspect.isfunction(found):
        for argument in inspect.signature(found).parameters:
            assert f"        {argument}: " in found.__doc__, argument


def test_the_import_is_light():
    heavy = "{'torch', 'numpy', 'pandas', 'pyarrow', 'transformers', 'tokenizers', 'datasets'}"
    program = f"import sys, commonweight.data.shortcuts; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
