"""Models of every kind: what is masked, what is left alone, and what is refused with a reason."""

import ast
import re

import pytest
import torch
from supermasks.supermask_nets import Residual, everything_of, mlp, network, outputs, rows, train
from torch import nn

from commonweight.base.errors import UsageError
from commonweight.supermasks.network import SupermaskNetwork
from commonweight.supermasks.rules import Threshold, TopK

CONVOLUTIONS = {
    "grouped": nn.Conv2d(4, 8, 3, groups=2, padding=1),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4, padding=1),
    "transposed": nn.ConvTranspose2d(4, 8, 3, padding=1),
    "dilated": nn.Conv2d(4, 8, 3, dilation=2, padding=2),
}


@pytest.mark.parametrize("rule", [Threshold(), TopK(0.4)], ids=repr)
@pytest.mark.parametrize("layer", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_of_every_kind(layer, rule):
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), layer, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
    net = network("a", "b", model=model, rule=rule)
    assert net.masked == ("0.weight", "2.weight", "5.weight")
    data = rows(shape=(2, 6, 6))
    before = everything_of(net, "b")
    start = net.bits("a", "2.weight")
    train(net, "a", data=data)
    assert net.bits("a", "2.weight") != start
    answer = outputs(net, "a", data[0])
    net.finish("a", keep_scores=False)
    assert torch.equal(outputs(net, "a", data[0]), answer)
    assert everything_of(net, "b") == before


@pytest.mark.parametrize("rule", [Threshold(), TopK(0.4)], ids=repr)
@pytest.mark.parametrize("when", ["before", "after"])
def test_channels_last_gives_the_same_masks(rule, when):
    data = rows(shape=(2, 8, 8))
    model, last = Residual(), Residual()
    if when == "before":
        last = last.to(memory_format=torch.channels_last)
    one, two = network("a", model=model, rule=rule), network("a", model=last, rule=rule)
    if when == "after":
        two = two.to(memory_format=torch.channels_last)
    two_data = (data[0].to(memory_format=torch.channels_last), data[1])
    for name in one.masked:
        assert one.bits("a", name) == two.bits("a", name)
    one.switch("a")
    two.switch("a")
    nn.functional.cross_entropy(one(data[0]), data[1]).backward()
    nn.functional.cross_entropy(two(two_data[0]), data[1]).backward()
    for first, second in zip(one.trainable("a"), two.trainable("a"), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-3, atol=1e-5)
    assert two.model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    train(two, "a", data=two_data)
    answer = outputs(two, "a", two_data[0])
    two.finish("a", keep_scores=False)
    assert torch.equal(outputs(two, "a", two_data[0]), answer)


@pytest.mark.parametrize("rule", [Threshold(), TopK(0.4)], ids=repr)
def test_bfloat16_trains_and_finishes(rule):
    net = network("a", "b", model=mlp().bfloat16(), rule=rule)
    inputs, labels = rows()
    before = everything_of_low(net, "b")
    train(net, "a", data=(inputs.bfloat16(), labels))
    for name in net.masked:
        mask = net.mask("a", name)
        assert net.scores("a", name).dtype == torch.bfloat16
        if isinstance(rule, TopK):
            assert mask.sum() == round(0.4 * mask.numel())
    answer = outputs(net, "a", inputs.bfloat16())
    assert answer.dtype == torch.bfloat16
    net.finish("a", keep_scores=False)
    assert torch.equal(outputs(net, "a", inputs.bfloat16()), answer)
    assert everything_of_low(net, "b") == before


def everything_of_low(net, task):
    return [net.bits(task, name).packed.tolist() for name in net.masked], [
        statistics.mean.tolist() for statistics in net.statistics(task).values()
    ]


def test_autocast_trains():
    net = network("a")
    inputs, labels = rows()
    net.switch("a")
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(net(inputs), labels)
    loss.backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in net.trainable("a"))


def test_a_layer_frozen_before_is_left_alone():
    model = mlp()
    model[3].requires_grad_(False)
    weight, bias = model[3].weight.clone(), model[3].bias.clone()
    net = network("a", model=model)
    assert net.masked == ("0.weight", "6.weight")
    assert net.unmasked["3.weight"] == net.unmasked["3.bias"] == "was frozen before"
    train(net, "a")
    assert torch.equal(net.model[3].weight, weight)
    assert torch.equal(net.model[3].bias, bias)


def test_a_bias_or_batch_norm_frozen_before_is_left_alone():
    model = mlp()
    for parameter in (model[0].bias, model[1].weight, model[4].weight, model[4].bias):
        parameter.requires_grad_(False)
    bias = model[0].bias.clone()
    net = network("a", model=model, batch_norm="affine")
    assert torch.equal(net.model[0].bias, bias)
    assert not net.model[3].bias.any()
    assert len(net.trainable("a")) == 3 + 1  # the bias of the first batch norm
    train(net, "a")
    assert net.trainable("a")[3].any()
    assert torch.equal(net.model[0].bias, bias)


def test_a_layer_called_twice_has_one_mask():
    layer = nn.Linear(6, 6)
    net = network("a", model=nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(6, 3)))
    assert net.masked == ("0.weight", "3.weight")
    train(net, "a")
    net.finish("a")
    assert net.model[0].weight.equal(net.model[2].weight)


def test_tied_weights_have_one_mask_and_sum_their_gradients():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    net = network("a", "b", model=nn.Sequential(first, nn.Tanh(), second, nn.Linear(6, 3)))
    assert net.masked == ("0.weight", "3.weight")
    net.switch("a")
    inputs, labels = rows()
    nn.functional.cross_entropy(net(inputs), labels).backward()
    gradient = net.trainable("a")[0].grad.clone()
    weight = net.model[0].weight.detach().requires_grad_()
    hidden = nn.functional.linear(nn.functional.linear(inputs, weight).tanh(), weight)
    nn.functional.cross_entropy(nn.functional.linear(hidden, net.model[3].weight.detach()), labels).backward()
    torch.testing.assert_close(gradient, weight.grad * net.get_parameter("model.0.parametrizations.weight.original"))
    train(net, "a")
    assert net.model[0].weight.equal(net.model[2].weight)
    assert "2.bias" in net.unmasked
    assert not net.model[2].bias.any()


def test_a_weight_tied_to_another_kind_of_layer_is_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.words = nn.Linear(4, 9), nn.Embedding(9, 4)
            self.words.weight = self.head.weight

    with pytest.raises(UsageError, match=r"weights of Embedding \(words\) cannot be .* exclude=\['head\.weight'\]"):
        SupermaskNetwork(Tied())


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.lstm(x[:, None])[0][:, 0])


def test_weights_that_cannot_be_masked_are_named_and_can_be_excluded():
    with pytest.raises(UsageError, match=r"weights of LSTM \(lstm\) cannot be masked: only those of Linear and Conv"):
        SupermaskNetwork(Recurrent())
    net = network("a", model=Recurrent(), exclude=["lstm"])
    assert net.masked == ("head.weight",)
    assert net.unmasked["lstm.weight_hh_l0"] == "left out by include or exclude"
    weights = net.weights_digest()
    train(net, "a")
    assert net.weights_digest() == weights
    attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    with pytest.raises(UsageError, match=r"weights of MultiheadAttention \(self_attn\) cannot be masked"):
        SupermaskNetwork(attention)
    net = network("a", model=attention, exclude=["self_attn.in_proj_weight"])
    assert net.masked == ("self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    net.switch("a")
    inputs, direction = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    net.train()
    (net(inputs) * direction).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.trainable("a"))
    net.eval()
    answer = net(inputs)
    net.finish("a", keep_scores=False)
    with torch.no_grad():
        torch.testing.assert_close(net(inputs), answer)  # PyTorch's fast path sees the masked weights too


class Tokens(nn.Module):
    """Two tables of its own, an embedding, and layers."""

    def __init__(self):
        super().__init__()
        self.words, self.start, self.places = nn.Embedding(9, 8), nn.Parameter(torch.ones(1, 8)), nn.Embedding(5, 8)
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 2)


def encoder(depth=3):
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


UNMASKABLE = {
    "encoder": (encoder, [f"layers.{i}.self_attn.in_proj_weight" for i in range(3)], "self_attn and 2 more"),
    "encoder and decoder": (
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        [f"{part}.in_proj_weight" for part in (
            "encoder.layers.0.self_attn", "decoder.layers.0.self_attn", "decoder.layers.0.multihead_attn"
        )],
        "self_attn and 2 more",
    ),
    "attention that is not packed": (
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6),
        ["q_proj_weight", "k_proj_weight", "v_proj_weight"],
        r"MultiheadAttention \(the model\)",
    ),
    "recurrent": (Recurrent, ["lstm.weight_ih_l0", "lstm.weight_hh_l0"], r"LSTM \(lstm\)"),
    "tables": (
        Tokens, ["start", "words.weight", "places.weight"], r"Tokens \(the model\), Embedding \(words and 1 more\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "names", "kinds"), UNMASKABLE.values(), ids=UNMASKABLE)
def test_all_weights_that_cannot_be_masked_are_named_at_once(make, names, kinds):
    for given in (None, names[:1]):
        with pytest.raises(
            UsageError, match=rf"{kinds}.* cannot be masked" if given is None else "cannot be masked"
        ) as e:
            SupermaskNetwork(make(), exclude=given)
        listed = ast.literal_eval(re.search(r"exclude=(\[.*?\])", str(e.value))[1])
        assert listed == names
        assert ("in_proj_weight.chunk(3)" in str(e.value)) is any("in_proj" in name for name in names)
    assert not set(names) & set(SupermaskNetwork(make(), exclude=listed).masked)


def test_include_and_exclude_choose():
    assert network(include=["0", "6.*"]).masked == ("0.weight", "6.weight")
    assert network(exclude=["3.weight"]).masked == ("0.weight", "6.weight")
    net = network(include=["0", "3"], exclude=["3"])
    assert net.masked == ("0.weight",)
    assert net.unmasked["3.weight"] == "left out by include or exclude"
    assert net.unmasked["3.bias"] == "a vector, such as a bias"
    assert net.unmasked["4.weight"] == "a batch norm's"
    assert set(net.masked) | set(net.unmasked) == {name for name, _ in mlp().named_parameters()}
    with pytest.raises(UsageError, match="exclude pattern '9' matches no parameter and no module"):
        network(exclude=["9"])
    with pytest.raises(UsageError, match="nothing to mask"):
        network(exclude=["*"])


def test_models_that_are_not_ready():
    with pytest.raises(UsageError, match=r"0\.weight, 0\.bias, 1\.weight, 1\.bias have no shape yet"):
        SupermaskNetwork(nn.Sequential(nn.LazyLinear(3), nn.LazyLinear(2)))
    norms = [nn.BatchNorm1d(3, track_running_stats=False) for _ in range(2)]
    with pytest.raises(UsageError, match="1, 2 keep no running statistics"):
        SupermaskNetwork(nn.Sequential(nn.Linear(3, 3), *norms))
    with pytest.raises(UsageError, match="nothing to mask"):
        SupermaskNetwork(nn.Sequential(nn.ReLU()))


utils = nn.utils
COMPUTED = {
    "pruned": (lambda layer: utils.prune.l1_unstructured(layer, "weight", 0.5), utils.prune.remove),
    "pruned twice": (
        lambda layer: [utils.prune.random_unstructured(layer, "weight", 0.3) for _ in range(2)],
        utils.prune.remove,
    ),
    "pruned by rows": (lambda layer: utils.prune.ln_structured(layer, "weight", 0.5, 2, 0), utils.prune.remove),
    "weight-normed": (utils.weight_norm, utils.remove_weight_norm),
    "spectral-normed": (utils.spectral_norm, utils.remove_spectral_norm),
    "parametrised": (utils.parametrizations.weight_norm, utils.parametrize.remove_parametrizations),
    "parametrised to be orthogonal": (utils.parametrizations.orthogonal, utils.parametrize.remove_parametrizations),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize(("change", "undo"), COMPUTED.values(), ids=COMPUTED)
def test_weights_that_are_computed_are_refused_until_they_are_plain(change, undo, called, request):
    kind = request.node.callspec.id.split("-True")[0].split("-False")[0].split()[0]
    torch.manual_seed(0)
    model, inputs = mlp(norm=False), rows()[0]
    for place in (0, 4):
        change(model[place])
    if called:
        model(inputs)
    with pytest.raises(UsageError, match=rf"^0\.weight, 4\.weight are {kind}.*{undo.__name__}\(layer, name\)"):
        SupermaskNetwork(model, weights="keep")
    for place in (0, 4):
        undo(model[place], "weight")
    net = network("a", model=model, weights="keep")
    assert set(net.masked) == {"0.weight", "2.weight", "4.weight"}
    assert torch.equal(net.weight("4.weight"), model[4].weight)
    train(net, "a")


def test_every_kind_of_computed_weight_is_named_wherever_it_is():
    model = nn.Sequential(nn.Embedding(5, 4), nn.LSTM(4, 4), nn.Linear(4, 2))
    nn.utils.prune.l1_unstructured(model[0], "weight", 0.5)
    nn.utils.spectral_norm(model[1], "weight_hh_l0")
    nn.utils.prune.l1_unstructured(model[2], "bias", 0.5)
    with pytest.raises(
        UsageError,
        match=r"0\.weight, 2\.bias are pruned; 1\.weight_hh_l0 is spectral-normed: .*prune\.remove.*spectral_norm",
    ):
        SupermaskNetwork(model, exclude=["0", "1"])


def test_a_model_that_cannot_be_copied_is_refused():
    model = mlp()
    model.last = model(rows()[0])
    with pytest.raises(UsageError, match=r"the model cannot be copied: .*remove or detach what it keeps beside"):
        SupermaskNetwork(model)


def test_one_layer_is_a_model_too():
    net = network("a", model=nn.Linear(6, 3))
    assert net.masked == ("weight",)
    train(net, "a")
    net.finish("a", keep_scores=False)
    assert outputs(net, "a", rows()[0]).shape == (40, 3)
