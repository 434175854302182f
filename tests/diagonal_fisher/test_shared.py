"""Any number of processes give the Fisher of one: counts exactly, values to 1e-6."""

from __future__ import annotations

import pytest
import torch
from diagonal_fisher import shared
from processes import ended, started


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return {name: shared.plain(each) for name, each in shared.measured(tmp_path_factory.mktemp("alone")).items()}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_number_of_processes_gives_the_same(alone, tmp_path, world):
    for done in ended(started(world, [shared.__file__, str(tmp_path)])):
        assert done.code == 0, done.err
    for rank in range(world):
        found = torch.load(tmp_path / f"found-{rank}.pt")
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            for exact in ("counts", "agreement", "unused"):
                assert found[name][exact] == expected[exact], name
            assert set(expected["generic"]) <= set(found[name]["generic"])
            for tensors in ("tensors", "rows", "source_rows"):
                assert found[name][tensors].keys() == expected[tensors].keys()
                for key, tensor in expected[tensors].items():
                    torch.testing.assert_close(found[name][tensors][key], tensor, rtol=1e-6, atol=1e-12)
            for fold, whole in zip(found[name]["folds"], expected["folds"], strict=True):
                for key, tensor in whole.items():
                    torch.testing.assert_close(fold[key], tensor, rtol=1e-6, atol=1e-12)
            for layer, sums in expected["spread"].items():
                assert found[name]["spread"][layer] == pytest.approx(sums, rel=1e-9)
