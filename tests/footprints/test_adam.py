"""Adam's second moment: squared gradients by name, out of a file of which nothing is executed."""

from __future__ import annotations

import pytest
import torch
from torch import nn, tensor
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel, Trainer

import commonweight
from commonweight import Footprint
from commonweight.base.errors import IntegrityError, NotComparableError, UsageError
from commonweight.footprints.of_adam import adam_footprint


def tiny(config, model):
    sizes = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return model(config(**sizes, intermediate_size=12, **({"n_inner": 12} if config is GPT2Config else {})))


def trained(model, folder, *, one_group=False, steps=3):
    """Step with the gradient 1, 2, ... in the parameters by name, and save the optimiser as a Trainer does."""
    named = dict(model.named_parameters())
    decayed = Trainer.get_decay_parameter_names(None, model)
    groups = [{"params": [named[name] for name in named if (name in decayed) is kept]} for kept in (True, False)]
    adam = torch.optim.AdamW(model.parameters() if one_group else groups, lr=1e-3)
    for _ in range(steps):
        for number, weight in enumerate(named.values()):
            weight.grad = torch.full_like(weight, number + 1.0)
        adam.step()
    torch.save(adam.state_dict(), folder / "optimizer.pt")
    return model


@pytest.mark.parametrize(
    ("config", "model"), [(BertConfig, BertModel), (GPT2Config, GPT2Model), (LlamaConfig, LlamaModel)]
)
def test_moments_get_the_names_that_a_trainer_numbered(config, model, tmp_path):
    model = trained(tiny(config, model), tmp_path)
    found = adam_footprint(model, tmp_path)
    assert found.kind == "adam_v"
    assert found.names == tuple(name for name, _ in model.named_parameters())
    for number, (name, weight) in enumerate(model.named_parameters()):  # v of a constant gradient is its square
        torch.testing.assert_close(found[name], torch.full_like(weight, (number + 1.0) ** 2), rtol=1e-4, atol=0)


def test_one_group_and_frozen_parameters(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    first = adam_footprint(trained(model, tmp_path, one_group=True, steps=5), tmp_path / "optimizer.pt")
    assert first["1.bias"].tolist() == pytest.approx([16, 16])
    assert first.metadata["steps"] == 5
    model[0].requires_grad_(False)
    with pytest.raises(NotComparableError, match=r"has 4 parameters, .* makes groups of 0 and 2, with"):
        adam_footprint(model, tmp_path)


def test_a_gradient_that_changes_is_weighed_as_adam_weighs_it(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.5))
    for gradient in (1.0, 2.0, 4.0):
        model.weight.grad = tensor([[gradient]])
        adam.step()
    torch.save(adam.state_dict(), tmp_path / "optimizer.pt")
    assert adam_footprint(model, tmp_path)["weight"].item() == pytest.approx((1 / 4 + 4 / 2 + 16) / (1 / 4 + 1 / 2 + 1))


def test_it_is_compared_with_its_kind_and_with_a_fisher_only_as_tensors(tmp_path):
    found = adam_footprint(trained(nn.Linear(3, 2), tmp_path), tmp_path)
    found.save(tmp_path / "saved")
    table = commonweight.overlap({"a": found, "b": Footprint.load(tmp_path / "saved")})
    assert table.pooled[0, 1] == pytest.approx(1)
    assert "Overlap of Adam's second moments of a and b" in table.to_markdown()
    assert "fold" not in table.to_markdown()
    fisher = Footprint("fisher", dict(found.items()), 8)
    with pytest.raises(NotComparableError, match="footprints of different kinds"):
        commonweight.overlap({"a": found, "fisher": fisher})
    assert commonweight.fisher_overlap(found["weight"], fisher["weight"]) == pytest.approx(1)


class Code:
    def __reduce__(self):
        return print, ("executed",)


def test_what_is_refused(tmp_path, capsys):
    model, path = nn.Linear(3, 2), tmp_path / "optimizer.pt"
    with pytest.raises(UsageError, match=r"no file .*optimizer.pt; give optimizer.pt of a Trainer"):
        adam_footprint(model, tmp_path)
    path.write_bytes(b"none")
    with pytest.raises(IntegrityError, match=r"holds more than tensors|is no state of an optimiser"):
        adam_footprint(model, path)
    torch.save({"state": Code(), "param_groups": []}, path)
    with pytest.raises(IntegrityError, match="could run code; nothing was read"):
        adam_footprint(model, path)
    assert "executed" not in capsys.readouterr().out
    trained(model, tmp_path, steps=0)
    with pytest.raises(UsageError, match="saved before the first step"):
        adam_footprint(model, path)
    with pytest.raises(NotComparableError, match=r"shape \[2, 3\] where the model has weight of shape \[3, 2\]"):
        adam_footprint(nn.Linear(2, 3), trained(model, tmp_path) and path)
    momentum = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    momentum.step()
    torch.save(momentum.state_dict(), path)
    with pytest.raises(UsageError, match="its optimiser is not Adam or AdamW"):
        adam_footprint(model, path)
