"""Cases in which an earlier engine was silently wrong or fell over: each equals the loop, or is refused in words."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diagonal_fisher.zoo import CLASSES, VOCABULARY, Checkpointed, Embedded, text, text_model
from reference.fisher import loop_fisher
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import commonweight
from commonweight import MeasurementError, UsageError
from commonweight.diagonal_fisher import rules
from commonweight.diagonal_fisher.batch import BatchReader
from commonweight.diagonal_fisher.losses import choose_likelihood
from commonweight.footprints.folds import fold_of

D = torch.float64

# peft asks transformers for an attribute that was renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def y(size=8):
    return torch.arange(size) % CLASSES


def randn(*shape):
    return torch.randn(*shape, dtype=D)


def cut(x, i):
    return tuple(v[i : i + 1] for v in x) if isinstance(x, tuple) else x[i : i + 1]


def examples_of(batches, shared=()):
    for batch in batches:
        if isinstance(batch, dict):
            for i in range(len(batch["labels"])):
                yield {
                    key: value[i : i + 1] if isinstance(value, Tensor) and key not in shared else value
                    for key, value in batch.items()
                }
        else:
            for i in range(len(batch[1])):
                yield cut(batch[0], i), batch[1][i : i + 1]


def nll(model, example):
    if isinstance(example, dict):
        labels = example["labels"]
        out = model(**{key: value for key, value in example.items() if key != "labels"})
    else:
        inputs, labels = example
        out = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    out = out if isinstance(out, Tensor) else out.logits
    return [F.cross_entropy(out.flatten(0, -2), labels.flatten(), ignore_index=-100, reduction="sum")]


def seq2seq_nll(model, example):
    logits = model(**example).logits
    return [F.cross_entropy(logits.flatten(0, 1), example["labels"].flatten(), ignore_index=-100, reduction="sum")]


def model_label_nll(model, example):
    log_prob = model(example[0]).log_softmax(-1)
    return [log_prob[0, c].detach().exp().sqrt() * -log_prob[0, c] for c in range(CLASSES)]


def gaps(footprint, reference):
    """Largest difference of square roots for every parameter, as a share of that parameter's own largest."""
    assert set(footprint) == set(reference)
    network = max(float(value.max()) for value in reference.values() if value.numel()) ** 0.5
    found = {}
    for name, value in reference.items():
        if not value.numel():
            continue
        own = max(float(value.max()), float(footprint[name].max())) ** 0.5
        difference = float((footprint[name].double().sqrt() - value.sqrt()).abs().max())
        # What is below the rounding of the network's largest gradient is zero but for rounding.
        found[name] = difference / own if own > 1e-12 * network else 0.0
    return found


def wrong(footprint, reference, tolerance=1e-6):
    return {name: value for name, value in gaps(footprint, reference).items() if not value < tolerance}


def assert_exact(model, batches, *, loss="classification", nll=nll, shared=(), tolerance=1e-6, **options):
    footprint = commonweight.fisher(model, batches, loss=loss, **options)
    reference, traces = loop_fisher(model, list(examples_of(batches, shared)), nll)
    assert wrong(footprint, reference, tolerance) == {}, footprint.metadata["generic"]
    assert footprint.count == len(traces)
    assert footprint.trace() == pytest.approx(sum(traces) / len(traces), rel=max(1e-6, tolerance))
    for number, fold in enumerate(footprint.folds):
        here = [row for i, row in enumerate(examples_of(batches, shared)) if fold_of(i, len(footprint.folds)) == number]
        assert wrong(fold.tensors, loop_fisher(model, here, nll)[0], tolerance) == {}, number
    return footprint


# The loss is inferred only where it is certain


def hollow(name):
    """A model's class without its weights; only its config is looked at."""
    import transformers

    kind = getattr(transformers, name)
    model = kind.__new__(kind)
    nn.Module.__init__(model)
    model.config = kind.config_class()
    return model


def inferred(model):
    return choose_likelihood(None, model, BatchReader().read(text(5, 7, labels="token"))).name


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("GPT2LMHeadModel", "causal_lm"),
        ("OpenAIGPTLMHeadModel", "causal_lm"),
        ("LlamaForCausalLM", "causal_lm"),
        ("T5ForConditionalGeneration", "seq2seq"),
        ("BartForConditionalGeneration", "seq2seq"),
        ("BertForMaskedLM", "token"),
    ],
)
def test_the_loss_of_an_unmistakable_class_is_inferred(name, loss):
    assert inferred(hollow(name)) == loss


@pytest.mark.parametrize(
    "name",
    [
        "Gemma3ForConditionalGeneration",
        "LlavaForConditionalGeneration",
        "Qwen2VLForConditionalGeneration",
        "XLNetLMHeadModel",
        "XLMWithLMHeadModel",
        "FlaubertWithLMHeadModel",
        "GPT2DoubleHeadsModel",
    ],
)
def test_the_loss_of_a_class_that_means_several_things_is_not(name):
    with pytest.raises(UsageError, match=r"cannot be inferred: pass loss \(one of classification.*causal_lm.*seq2seq"):
        inferred(hollow(name))


def gemma3():
    import transformers as t

    words = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = t.Gemma3Config(
        text_config={**words, "head_dim": 4, "intermediate_size": 12, "vocab_size": VOCABULARY, "pad_token_id": 0},
        vision_config={
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 12,
            "image_size": 16,
            "patch_size": 4,
        },
        mm_tokens_per_image=4,
        image_token_index=22,
        boi_token_index=20,
        eoi_token_index=21,
    )
    return t.Gemma3ForConditionalGeneration(config).double()


def test_a_decoder_that_is_called_conditional_generation_is_measured_with_shifted_labels():
    torch.manual_seed(0)
    model, batch = gemma3(), text(5, 7, labels="token")
    for key in ("input_ids", "labels"):
        batch[key].clamp_(max=19)
    with pytest.raises(UsageError, match="cannot be inferred"):
        commonweight.fisher(model, [batch])

    def shifted(model, example):
        logits = model(**{key: value for key, value in example.items() if key != "labels"}).logits[:, :-1]
        labels = example["labels"][:, 1:]
        return [F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")]

    assert_exact(model, [batch], loss="causal_lm", nll=shifted)


# Small batches first


class TimeFirst(nn.Module):
    """A layer between two transpositions."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.mix(self.embed(x).transpose(0, 1)).tanh()
        return self.head(x.transpose(0, 1).mean(1))


def in_sizes(batch, sizes):
    size = len(batch["labels"]) if isinstance(batch, dict) else len(batch[1])
    ends = list(itertools.accumulate(sizes))
    assert ends[-1] == size
    for first, last in zip([0, *ends], ends, strict=False):
        if isinstance(batch, dict):
            yield {key: value[first:last] for key, value in batch.items()}
        else:
            yield batch[0][first:last], batch[1][first:last]


SIZES = [[1] * 16 + [4, 4, 4], [1] * 16 + [2, 1, 9], [1, 1, 26], [2] * 8 + [12], [28]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("length", [4, 8, 9])
def test_a_layer_that_sees_time_first_after_batches_of_one(sizes, length):
    torch.manual_seed(0)
    batches = list(in_sizes((randn(28, length, 6), y(28)), sizes))
    assert_exact(TimeFirst().double(), batches)


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[1], SIZES[2]], ids=str)
def test_t5_after_batches_of_one(sizes):
    torch.manual_seed(0)
    model = text_model("t5").model.double()
    batches = list(in_sizes(text(28, 8, labels="token"), sizes))
    assert_exact(model, batches, loss=None, nll=seq2seq_nll)


def test_t5_with_folds_of_padded_batches():
    torch.manual_seed(0)
    model = text_model("t5").model.double()
    batches = [text(2, length, labels="token") for length in (4, 6, 8, 10) * 5]
    assert_exact(model, batches, loss=None, nll=seq2seq_nll, folds=4)


# Rows that are folded in another way by later batches


class ChunkMajor(nn.Module):
    """Long texts are split; the pieces of all texts come one after the other."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, ids):
        h = self.embed(ids)
        if h.shape[1] > 8:
            h = self.mix(torch.cat(h.split(8, 1), 0)).tanh()
            h = torch.cat(h.split(len(ids), 0), 1)
        else:
            h = self.mix(h).tanh()
        return self.head(h.mean(1))


@pytest.mark.parametrize("lengths", [(8, 8, 16), (8, 8, 32, 16), (16, 8, 8), (8, 16, 8, 64)], ids=str)
@pytest.mark.parametrize("reentrant", [None, True, False])
def test_pieces_of_texts_one_after_the_other_from_the_third_batch(lengths, reentrant):
    torch.manual_seed(0)
    model = ChunkMajor().double()
    if reentrant is not None:
        model.mix = Recomputed(model.mix, reentrant=reentrant)
    batches = [(torch.randint(0, VOCABULARY, (8, length)), y()) for length in lengths]
    assert_exact(model, batches)


class Recomputed(nn.Module):
    def __init__(self, inner, *, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


class Unpadded(nn.Module):
    """Runs a layer on the real tokens only."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.bool()
        h = self.embed(input_ids)
        out = torch.zeros_like(h).masked_scatter(mask[..., None], self.mix(h[mask]).tanh())
        return self.head(out.sum(1))


def texts_of(lengths, padded):
    mask = (torch.arange(padded)[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(3, VOCABULARY, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": y(len(lengths))}


@pytest.mark.parametrize(
    "later",
    [
        ([4, 6, 6, 6, 6, 6, 7, 7], 7),  # 48 tokens: a multiple of the batch
        ([4, 4, 4, 4, 6, 6, 6, 6], 6),  # 40, as many as before, in texts of another length
        ([7, 6, 5, 7, 7, 7, 7, 7], 7),
    ],
    ids=["a multiple", "as many as before", "no multiple"],
)
def test_batches_of_one_length_first_and_mixed_ones_later(later):
    torch.manual_seed(0)
    assert_exact(Unpadded().double(), [texts_of([5] * 8, 5), texts_of([5] * 8, 5), texts_of(*later)])


@pytest.mark.parametrize(
    "later",
    [[4, 4, 4, 4, 6, 6, 6, 6], [3, 7, 5, 5, 5, 5, 5, 5]],
    ids=["halves", "one pair"],
)
def test_mixed_lengths_with_as_many_tokens_and_the_same_padding(later):
    """Padded to a fixed length, sorted by length: the shapes never change, and neither does the number of rows."""
    torch.manual_seed(0)
    assert_exact(Unpadded().double(), [texts_of([5] * 8, 7), texts_of([5] * 8, 7), texts_of(later, 7)])


class Masked(nn.Module):
    """A head on the marked positions only."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, input_ids, marked):
        h = self.embed(input_ids).tanh()
        found = torch.zeros_like(h).masked_scatter(marked[..., None], self.mix(h[marked]).tanh())
        return self.head(found.sum(1) + h.mean(1))


def test_one_marked_position_in_every_text_first_and_any_number_later():
    torch.manual_seed(0)
    batches = []
    for counts in ([1] * 8, [1] * 8, [2, 0, 1, 1, 3, 0, 1, 0]):
        marked = torch.arange(7)[None] < torch.tensor(counts)[:, None]
        batches.append({"input_ids": torch.randint(3, VOCABULARY, (8, 7)), "marked": marked, "labels": y()})
    assert_exact(Masked().double(), batches)


class Flattened(nn.Module):
    """Long texts go through the layer as one row."""

    def __init__(self, *, reentrant=None):
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.reentrant = reentrant

    def mixed(self, x):
        size, length, _ = x.shape
        return self.mix(x.reshape(1, -1, 6)).view(size, length, 6) if length > 5 else self.mix(x)

    def forward(self, x):
        x = self.embed(x)
        x = self.mixed(x) if self.reentrant is None else checkpoint(self.mixed, x, use_reentrant=self.reentrant)
        return self.head(x.tanh().mean(1))


@pytest.mark.parametrize("rule", ["empirical", "exact"])
@pytest.mark.parametrize("reentrant", [None, True, False])
def test_a_layer_that_is_refused_by_a_later_batch(rule, reentrant):
    torch.manual_seed(0)
    first = (randn(8, 5, 6), y())
    batches = [first, first, (randn(8, 6, 6), y()), first]
    losses = {"empirical": nll, "exact": model_label_nll}
    footprint = assert_exact(Flattened(reentrant=reentrant).double(), batches, nll=losses[rule], fisher_type=rule)
    assert "mix.weight" in footprint.metadata["generic"]


# Reentrant checkpointing


class LateInCheckpoint(nn.Module):
    """A layer inside a reentrant checkpoint that only a rare example uses."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.embed, self.a, self.late = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)
        self.weight = weight

    def block(self, x):
        h = self.a(x).tanh()
        rare = x[:, :1, :1] > 50
        return h + self.late(h) * rare * self.weight if rare.any() else h

    def forward(self, x):
        z = torch.cat([x[..., :1] * 1.0, self.embed(x)[..., 1:]], -1)
        return self.head(checkpoint(self.block, z, use_reentrant=True).mean(1))


@pytest.mark.parametrize("weight", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("rule", ["empirical", "exact"])
def test_a_parameter_that_wakes_up_inside_a_reentrant_checkpoint(weight, rule):
    torch.manual_seed(3)
    x = 0.3 * randn(24, 5, 6)
    x[20, 0, 0] = 60
    batches = [(x[i : i + 8], y()) for i in (0, 8, 16)]
    losses = {"empirical": nll, "exact": model_label_nll}
    assert_exact(LateInCheckpoint(weight).double(), batches, nll=losses[rule], fisher_type=rule)


class TwoWays(nn.Module):
    """A vector used inside a reentrant checkpoint, where its gradient is tiny, and outside."""

    def __init__(self, weight):
        super().__init__()
        self.embed, self.scale, self.head = nn.Linear(6, 6), nn.Parameter(torch.randn(6)), nn.Linear(6, CLASSES)
        self.weight = weight

    def forward(self, x):
        x = self.embed(x)
        inside = checkpoint(lambda z: (z * self.scale).tanh(), x, use_reentrant=True)
        return self.head(x + self.weight * (inside + (x.detach() * self.scale).tanh()))


@pytest.mark.parametrize("weight", [1.0, 1e-3, 1e-6])
def test_a_gradient_that_comes_partly_from_a_reentrant_checkpoint(weight):
    torch.manual_seed(0)
    assert_exact(TwoWays(weight).double(), [(randn(5, 6), y(5)), (randn(3, 6), y(3))])


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_part_of_a_checkpointed_model(reentrant):
    """Gradients do not depend on which other parameters are measured."""
    torch.manual_seed(0)
    model = Checkpointed(reentrant=reentrant).double()
    batch = (randn(8, 5, 6), y())
    whole, _ = loop_fisher(model, list(examples_of([batch])), nll)
    for include in ("inner", "inner.0", "inner.2.weight", "first", "head"):
        part = commonweight.fisher(model, [batch], include=include)
        assert wrong(part, {name: whole[name] for name in part}) == {}, include


class ExpertsInCheckpoint(nn.Module):
    """Each example goes to one layer of a reentrant checkpoint."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x, chosen):
        def route(h):
            out = torch.zeros_like(h)
            for number, expert in enumerate(self.experts):
                if (chosen == number).any():
                    out[chosen == number] = expert(h[chosen == number])
            return out

        return self.head((checkpoint(route, self.embed(x), use_reentrant=True)).tanh().mean(1))


@pytest.mark.parametrize("last", [0, 1])
def test_a_layer_of_a_reentrant_checkpoint_that_the_last_row_does_not_use(last):
    """Whether the other parameters can stay frozen while it is measured is then unknown."""
    torch.manual_seed(0)
    chosen = torch.tensor([1 - last, last, 1 - last, 1 - last, last, last, 1 - last, last])
    footprint = assert_exact(ExpertsInCheckpoint().double(), [((randn(8, 5, 6), chosen), y())])
    assert {"experts.0.weight", "experts.1.weight"} <= set(footprint.metadata["generic"])


@pytest.mark.parametrize("reentrant", [None, True, False])
@pytest.mark.parametrize("lengths", [(6, 5, 5), (5, 6, 5, 6), (6, 5, 6)], ids=str)
def test_a_layer_that_only_some_batches_refuse(reentrant, lengths):
    """The routes are chosen again for texts of another length; what was learned before must hold."""
    torch.manual_seed(0)
    assert_exact(Flattened(reentrant=reentrant).double(), [(randn(8, length, 6), y()) for length in lengths])


# Gradients that are zero or small on the rows looked at


class Modalities(nn.Module):
    """Text and images; images are missing (times 0) in some examples, and their layer sees time first."""

    def __init__(self, read=lambda h: h.mean(0)):
        super().__init__()
        self.words, self.pixels, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.read = read

    def forward(self, words, pixels, there):
        seen = self.read(self.pixels(pixels.transpose(0, 1)).tanh())
        return self.head(self.words(words).tanh().mean(1) + seen * there[:, None])


def with_images(there, size):
    words, pixels = randn(len(there), 4, 6), randn(len(there), 2 * size, 6)
    whole = {"words": words, "pixels": pixels, "there": torch.tensor(there, dtype=D), "labels": y(len(there))}
    return list(in_sizes(whole, [size] * (len(there) // size)))


@pytest.mark.parametrize("size", [3, 4, 8])
def test_a_modality_that_is_missing_from_the_first_rows(size):
    torch.manual_seed(0)
    batches = with_images([0.0] * 18 + [1.0] * 6, size)
    footprint = assert_exact(Modalities().double(), batches)
    assert "pixels.weight" in footprint.metadata["generic"]


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("read", [lambda h: h[-1], lambda h: h[0], lambda h: h.mean(0)], ids=["last", "first", "mean"])
def test_a_modality_that_one_of_the_first_rows_has(position, read):
    """With one example and one place, a wrong rule gives the right number."""
    torch.manual_seed(0)
    there = [0.0] * 18 + [1.0] * 6
    there[position] = 1.0
    assert_exact(Modalities(read).double(), with_images(there, 3))


class Faint(nn.Module):
    """A layer whose gradient is a small share of the largest; time first, or each example with itself."""

    def __init__(self, share):
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.share = share

    def forward(self, x):
        x = self.embed(x)
        faint = self.mix(x.transpose(0, 1)).tanh().transpose(0, 1)
        return self.head(x.mean(1) + self.share * faint.mean(1))


@pytest.mark.parametrize("share", [1e-1, 1e-4, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_faint_layer_that_sees_time_first(share, seed, dtype):
    torch.manual_seed(seed)
    model = Faint(share).to(dtype)
    x = torch.randn(18, 9, 6).to(dtype)
    batches = [(x[i : i + 3], y(3)) for i in range(0, 18, 3)]
    footprint = commonweight.fisher(model, batches)
    reference, _ = loop_fisher(model, list(examples_of(batches)), nll)
    assert wrong(footprint, reference, 1e-6 if dtype == torch.float64 else 1e-3) == {}


@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("seed", range(5))
def test_a_faint_layer_that_sees_time_first_in_bfloat16(share, seed):
    """Against the same numbers computed in float32."""
    torch.manual_seed(seed)
    model = Faint(share).bfloat16()
    x = torch.randn(18, 9, 6).bfloat16()
    batches = [(x[i : i + 3], y(3)) for i in range(0, 18, 3)]
    footprint = commonweight.fisher(model, batches)
    exact = copy.deepcopy(model).float()
    reference, _ = loop_fisher(exact, [(x.float(), labels) for x, labels in examples_of(batches)], nll)
    assert wrong(footprint, reference, 0.15) == {}, footprint.metadata["generic"]


def test_a_fresh_adapter_has_a_first_matrix_without_gradient():
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    model = peft.get_peft_model(text_model("bert").model, config).double()
    footprint = assert_exact(model, list(in_sizes(text(8), [5, 3])), loss=None)
    assert footprint.trace("base_model.model.bert.encoder.layer.0.attention.self.query.lora_A") == 0
    assert footprint.trace("base_model.model.bert.encoder.layer.0.attention.self.query.lora_B") > 0


# Numbers that are not finite


class UndefinedAtTheEdge(nn.Module):
    """The gradient is nan at one position of one example, and the loss is finite."""

    def __init__(self, place, layer):
        super().__init__()
        self.layer, self.place = layer, place

    def forward(self, x, kept):
        h = self.layer(x)
        edge = h[:, self.place] * kept[:, None]
        return h.mean(1)[:, :CLASSES] + 0 * edge.square().sum(-1).sqrt()[:, None]


@pytest.mark.parametrize("layer", ["linear", "without bias", "norm", "replayed"])
@pytest.mark.parametrize("place", [0, -1, 2])
def test_a_gradient_that_is_nan_at_one_position(layer, place):
    torch.manual_seed(0)
    layers = {
        "linear": lambda: nn.Linear(4, 4),
        "without bias": lambda: nn.Linear(4, 4, bias=False),
        "norm": lambda: nn.LayerNorm(4),
        "replayed": lambda: nn.LSTM(4, 4, batch_first=True),
    }
    made = layers[layer]().double()
    inner = FirstOutput(made) if layer == "replayed" else made
    kept = torch.ones(24, dtype=D)
    x = randn(24, 5, 4)
    model = UndefinedAtTheEdge(place, inner)
    batches = [((x[i : i + 8], kept[i : i + 8]), y()) for i in (0, 8, 16)]
    assert_exact(model, batches)
    kept[20] = 0
    with pytest.raises(MeasurementError, match=r"the gradient of layer.*is not finite for example 20"):
        commonweight.fisher(model, batches, loss="classification")


class FirstOutput(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


# What belongs to the batch as a whole


class SharedMask(nn.Module):
    """Attention under a mask ``[T, T]`` that all examples share."""

    def __init__(self):
        super().__init__()
        self.query, self.scale, self.head = nn.Linear(6, 6), nn.Parameter(torch.randn(6)), nn.Linear(6, CLASSES)

    def forward(self, x, mask):
        q = self.query(x) * self.scale
        weights = (q @ q.transpose(1, 2)).masked_fill(mask == 0, -1e9).softmax(-1)
        return self.head((weights @ q).tanh()[:, : len(x[0]) // 2 + 1].mean(1))


class SharedPositions(nn.Module):
    """Weights ``[T]`` of the positions, which all examples share."""

    def __init__(self):
        super().__init__()
        self.layer, self.shift = nn.Linear(6, CLASSES), nn.Parameter(torch.zeros(CLASSES))

    def forward(self, x, places):
        return self.layer((x * places[None, :, None]).mean(1)) + self.shift


class Layer(nn.Module):
    """An encoder layer of PyTorch inside a larger model, given the shared mask."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Linear(6, CLASSES)

    def forward(self, x, mask):
        return self.head(self.layer(x, src_mask=mask == 0)[:, : len(x[0]) // 2 + 1].mean(1))


class Table(nn.Module):
    """A table of positions, looked up by a module of its own with indices ``[T]``."""

    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(12, 6))

        def forward(self, x, places):
            return x + self.table[places.long()]

    def __init__(self):
        super().__init__()
        self.look, self.mix, self.head = Table.Look(), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x, places):
        return self.head(self.mix(self.look(x, places)).tanh().mean(1))


SHARING = {"mask": SharedMask, "positions": SharedPositions, "layer": Layer, "table": Table}


def sharing_batches(kind, lengths, size):
    batches = []
    for length in lengths:
        extra = (
            {"mask": torch.tril(torch.ones(length, length, dtype=D))}
            if kind in {"mask", "layer"}
            else {"places": torch.arange(float(length), dtype=D)}
        )
        batches.append({"x": randn(size, length, 6), **extra, "labels": y(size)})
    return batches


@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("folds", [1, 3])
def test_shared_tensors_as_long_as_a_later_batch(kind, folds):
    torch.manual_seed(0)
    batches = sharing_batches(kind, (5, 6, 7, 8), 8)
    assert_exact(SHARING[kind]().double(), batches, shared=("mask", "places"), folds=folds)


@pytest.mark.parametrize("kind", SHARING)
@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("size", [4, 8])
def test_shared_tensors_as_long_as_the_first_batch(kind, folds, size):
    """Nothing tells them apart there: right, or refused in words."""
    torch.manual_seed(0)
    batches = sharing_batches(kind, (size, *range(5, 9)), size)
    model = SHARING[kind]().double()
    options = {"loss": "classification", "folds": folds}
    try:
        footprint = commonweight.fisher(model, batches, **options)
    except commonweight.CommonweightError:
        return
    reference, _ = loop_fisher(model, list(examples_of(batches, ("mask", "places"))), nll)
    assert wrong(footprint, reference) == {}


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, CLASSES)

    def forward(self, x, scale=1.0, names=None):
        return self.layer(x) * scale


@pytest.mark.parametrize("folds", [1, 2, 4])
def test_plain_values_differ_from_batch_to_batch(folds):
    torch.manual_seed(0)
    batches = [{"x": randn(4, 6), "scale": 1.0 if i % 2 else 3.0, "labels": y(4)} for i in range(8)]
    assert_exact(Scaled().double(), batches, folds=folds)


@pytest.mark.parametrize("folds", [1, 2, 4])
def test_numpy_arrays_among_the_plain_values(folds):
    torch.manual_seed(0)
    batches = [{"x": randn(4, 6), "names": np.arange(4), "labels": y(4)} for _ in range(8)]
    try:
        assert_exact(Scaled().double(), batches, folds=folds)
    except UsageError as error:
        assert "names" in str(error)  # noqa: PT017


# Things done to modules


def test_a_forward_that_was_replaced_on_one_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    layer = model[0]
    layer.forward = lambda x: F.linear(x, layer.weight * 2, layer.bias)
    assert_exact(model, list(in_sizes((randn(8, 6), y()), [5, 3])))


def test_an_embedding_that_rewrites_its_weights_is_refused():
    model = nn.Sequential(nn.Embedding(VOCABULARY, 6, max_norm=0.5), nn.Flatten(), nn.Linear(18, CLASSES))
    before = model[0].weight.detach().clone()
    with pytest.raises(UsageError, match=r"embedding 0 has max_norm.*set it to None"):
        commonweight.fisher(model, [(torch.randint(0, VOCABULARY, (8, 3)), y())])
    assert torch.equal(before, model[0].weight)


class VectorNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return x * self.weight


class MatrixNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        return x @ self.weight


@pytest.mark.parametrize("kind", [VectorNorm, MatrixNorm])
def test_hooks_of_the_user_run_once_for_every_run_of_the_model(kind):
    torch.manual_seed(0)
    model = nn.Sequential(kind(), nn.Linear(6, CLASSES)).double()
    calls = {"layer": 0, "model": 0}
    model[0].register_forward_hook(lambda *_: calls.__setitem__("layer", calls["layer"] + 1))
    model.register_forward_hook(lambda *_: calls.__setitem__("model", calls["model"] + 1))
    footprint = commonweight.fisher(model, [(randn(8, 6), y())] * 3)
    assert calls["layer"] == calls["model"] >= 3
    if kind is VectorNorm:
        assert not footprint.metadata["generic"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_reparametrisations_that_live_in_hooks():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.utils.weight_norm(nn.Linear(6, 6)), nn.Tanh(), nn.utils.spectral_norm(nn.Linear(6, 6)), nn.Linear(6, CLASSES)
    ).double()
    assert_exact(model, list(in_sizes((randn(8, 6), y()), [5, 3])))


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_layer_whose_weight_is_used_by_the_module_above_it(batch_first):
    """Attention of PyTorch keeps its last projection as a layer that it never calls."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=batch_first)
            self.head = nn.Linear(6, CLASSES)

        def forward(self, x):
            h = self.layer(x if batch_first else x.transpose(0, 1))
            return self.head(h.mean(1 if batch_first else 0))

    torch.manual_seed(0)
    assert_exact(Model().double(), [(randn(5, 7, 6), y(5)), (randn(3, 7, 6), y(3))])


# A layer's type and the sizes of its tensors prove nothing


class Applied(nn.Module):
    """A leaf that uses a function of its weight, element by element or as a matrix."""

    def __init__(self, function, *shape):
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.randn(*shape)), function

    def forward(self, x):
        weight = self.function(self.weight)
        return x @ weight if weight.dim() == 2 else x * weight


APPLIED = {
    "softmax": lambda w: w.softmax(-1),
    "softmax over rows": lambda w: w.softmax(0),
    "norm": lambda w: w / w.norm(),
    "norm of columns": lambda w: w / w.norm(dim=0, keepdim=True),
    "cumsum": lambda w: w.cumsum(0),
    "flip": lambda w: w.flip(0),
    "sorted": lambda w: w.sort(-1).values,
    "centred": lambda w: w - w.mean(),
    "shifted": lambda w: w.roll(1, -1) + w,
}
COINCIDING = [[(6, 6)], [(3, 3), (6, 6)], [(1, 6), (6, 6), (3, 6)], [(5, 7), (7, 5), (6, 6)]]
"""Examples and positions of the batches; widths and tables are 6, three rows are compared."""


@pytest.mark.parametrize("function", APPLIED)
@pytest.mark.parametrize("shape", [(6,), (6, 6)], ids=["vector", "matrix"])
def test_leaves_that_apply_a_function_to_their_weight(function, shape):
    for sizes in COINCIDING:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), Applied(APPLIED[function], *shape), nn.Tanh(), nn.Linear(6, CLASSES))
        assert_exact(model.double(), [(randn(size, 6), y(size)) for size, _ in sizes])


class TurnedAround(nn.Module):
    """Time comes first in the body."""

    def __init__(self, body):
        super().__init__()
        self.body, self.head = body, nn.Linear(6, CLASSES)

    def forward(self, x):
        h = self.body(x.transpose(0, 1))
        return self.head((h[0] if isinstance(h, tuple) else h).tanh().mean(0))


TIME_FIRST = {
    "linear": lambda: nn.Linear(6, 6),
    "norm": lambda: nn.LayerNorm(6),
    "encoder layer": lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=False),
    "recurrent": lambda: nn.GRU(6, 6),
    "leaf": lambda: Applied(APPLIED["softmax"], 6),
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
}


class TableOfSix(nn.Module):
    """Six rows for all examples, whatever the batch."""

    def __init__(self, way):
        super().__init__()
        self.table, self.layer, self.head = nn.Embedding(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.way = way

    def forward(self, x):
        rows = self.table.weight if self.way == "weight" else self.table(torch.arange(6))
        keys = self.layer(rows) if self.way == "mapped" else rows
        return self.head((x @ keys.T).softmax(-1) @ rows).mean(1)


class RelativePositions(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.table, self.head = nn.Embedding(31, width), nn.Linear(6, CLASSES)

    def forward(self, x):
        places = torch.arange(x.shape[1])
        apart = self.table(places[:, None] - places + 15)  # [length, length, width]
        scores = apart[..., 0] if apart.shape[-1] == 1 else torch.einsum("bid,ijd->bij", x, apart)
        return self.head(((x @ x.transpose(1, 2) + scores).softmax(-1) @ x).mean(1))


COINCIDENCES = {
    **{f"time first, {name}": lambda body=body: TurnedAround(body()) for name, body in TIME_FIRST.items()},
    **{f"table, {way}": lambda way=way: TableOfSix(way) for way in ("weight", "looked up", "mapped")},
    **{f"relative positions, {width}": lambda width=width: RelativePositions(width) for width in (1, 6)},
}


@pytest.mark.parametrize("kind", COINCIDENCES)
@pytest.mark.parametrize("sizes", COINCIDING, ids=str)
def test_first_dimensions_that_happen_to_equal_the_batch(kind, sizes):
    torch.manual_seed(0)
    assert_exact(COINCIDENCES[kind]().double(), [(randn(size, length, 6), y(size)) for size, length in sizes])


# Embeddings looked up once for the whole batch


class Positions(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way = way
        self.words, self.places = nn.Embedding(VOCABULARY, 6), nn.Embedding(16, 6)
        self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, input_ids, attention_mask):
        length = input_ids.shape[1]
        places, h = self.places(torch.arange(length)), self.words(input_ids)
        if self.way == "new axis":
            h = h + places[None]
        elif self.way == "unpacked":
            length, width = places.shape
            h = h + places.view(1, length, width)
        elif self.way == "unpacked sum":
            h = h + places[None]
            _, length, _ = h.shape
        elif self.way == "asserted":
            assert places.shape == (length, 6)
            h = h + places
        elif self.way == "expanded":
            h = h + places.unsqueeze(0).expand_as(h)
        elif self.way == "stacked":
            h = h + torch.stack([places[i] for i in range(length)])
        elif self.way == "product":
            h = h * torch.einsum("td,te->de", places, places).diagonal()
        elif self.way == "mixed":
            h = h + self.mix(places)
        else:
            h = h + places[: len(h[0])]
        h = self.mix(h).tanh() * attention_mask[..., None]
        return self.head(h.sum(-2))


WAYS = ["new axis", "unpacked", "unpacked sum", "asserted", "expanded", "stacked", "product", "mixed", "cut"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [5, 3])
def test_a_look_up_for_the_whole_batch(way, size):
    torch.manual_seed(1)
    assert_exact(Positions(way).double(), list(in_sizes(text(2 * size, 6), [size, size])))


@pytest.mark.parametrize("way", [*WAYS, "row", "arange", "full"])
def test_a_look_up_of_as_many_places_as_there_are_examples(way):
    torch.manual_seed(1)
    model = Embedded(way) if way in {"row", "arange", "full"} else Positions(way)
    assert_exact(model.double(), [text(4, 7), text(4, 6), text(4, 5), text(4, 5), text(4, 4)])


@pytest.mark.parametrize("way", ["product", "layer"])
@pytest.mark.parametrize("size", [8, 3])
def test_an_embedding_of_the_labels(way, size):
    class Labels(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.labels, self.layer = nn.Linear(6, 6), nn.Embedding(CLASSES, 6), nn.Linear(6, 6)

        def forward(self, x):
            labels = self.labels(torch.arange(CLASSES))
            labels = self.layer(labels) if way == "layer" else labels
            return self.body(x).tanh() @ labels.t()

    torch.manual_seed(0)
    assert_exact(Labels().double(), [(randn(size, 6), y(size))])


# Models that differentiate, and inputs that can be


class Force(nn.Module):
    """The outputs are derivatives of an energy by the inputs."""

    def __init__(self, way):
        super().__init__()
        self.a, self.b, self.way = nn.Linear(4, 8), nn.Linear(8, 1), way

    def energy(self, x):
        return self.b(self.a(x).tanh()).sum()

    def forward(self, x):
        if self.way == "enabled":
            x = x.detach().requires_grad_(True)
            with torch.enable_grad():
                (force,) = torch.autograd.grad(self.energy(x), x, create_graph=True)
        elif self.way == "detached":
            x = x.detach().requires_grad_(True)
            (force,) = torch.autograd.grad(self.energy(x), x, create_graph=True)
        else:
            x.requires_grad_(True)
            (force,) = torch.autograd.grad(self.energy(x), x, create_graph=True)
        return force[:, :CLASSES]


@pytest.mark.parametrize("way", ["enabled", "detached", "in place"])
def test_a_model_that_differentiates_inside_its_forward_pass(way):
    torch.manual_seed(0)
    x = randn(8, 4)
    batches = list(in_sizes((x, y()), [5, 3]))
    model = Force(way).double()
    footprint = assert_exact(model, [(x.clone(), labels) for x, labels in batches])
    assert footprint.trace() > 0
    assert x.grad is None


def test_inputs_that_require_a_gradient_get_none():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), VectorNorm(), nn.Linear(6, CLASSES)).double()
    x = randn(8, 6).requires_grad_(True)
    derived = x * 2
    for inputs in (x, derived, x):
        first = commonweight.fisher(model, [(inputs, y())])
        second = commonweight.fisher(model, [(inputs, y())])
        assert torch.equal(first.flat(), second.flat())
        assert x.grad is None
        assert inputs.requires_grad
        reference, _ = loop_fisher(model, list(examples_of([(inputs.detach(), y())])), nll)
        assert wrong(first, reference) == {}


@pytest.mark.parametrize("made", ["outside", "inside"])
def test_inside_inference_mode(made):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), VectorNorm(), nn.Linear(6, CLASSES), MatrixNorm3()).double()
    x, labels = randn(24, 6), y(24)
    expected, _ = loop_fisher(model, list(examples_of([(x, labels)])), nll)
    with torch.inference_mode():
        batch = (x.clone(), labels.clone()) if made == "inside" else (x, labels)
        footprint = commonweight.fisher(model, list(in_sizes(batch, [8, 8, 8])))
    assert wrong(footprint, expected) == {}
    outside = commonweight.fisher(model, [batch])
    assert wrong(outside, expected) == {}
    footprint.flat().sum()
    with torch.no_grad():
        assert wrong(commonweight.fisher(model, [batch]), expected) == {}


class MatrixNorm3(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, CLASSES))

    def forward(self, x):
        return x @ self.weight


def test_inference_mode_with_folds():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), VectorNorm(), nn.Linear(6, CLASSES)).double()
    x, labels = randn(24, 6), y(24)
    expected = commonweight.fisher(model, [(x, labels)], folds=3)
    with torch.inference_mode():
        footprint = commonweight.fisher(model, [(x.clone(), labels.clone())], folds=3)
    assert wrong(footprint, expected.tensors) == {}


# Odd modules


def test_a_transposed_convolution_whose_output_size_is_given():
    class Resized(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(2, 3, 3, stride=2), nn.ConvTranspose2d(3, 3, 3, stride=2)

        def forward(self, x):
            return self.up(self.down(x), output_size=x.shape[-2:]).square().mean((2, 3))

    torch.manual_seed(0)
    footprint = assert_exact(Resized().double(), [(randn(5, 2, 8, 8), y(5)), (randn(3, 2, 7, 8), y(3))])
    assert not footprint.metadata["generic"]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op:UserWarning")
def test_a_layer_without_inputs():
    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.none = nn.Linear(4, CLASSES), nn.Linear(0, CLASSES)
            self.nothing = nn.Linear(4, 0)

        def forward(self, x):
            return self.layer(x) + self.none(x[..., :0]) + self.nothing(x).sum(-1, keepdim=True)

    torch.manual_seed(0)
    assert_exact(Empty().double(), [(randn(5, 4), y(5)), (randn(3, 4), y(3))])
    pooled = nn.Sequential(Empty(), Mean()).double()
    assert_exact(pooled, [(randn(5, 2, 4), y(5)), (randn(3, 2, 4), y(3))])


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def test_a_buffer_that_is_expanded():
    class Expanded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, CLASSES)
            self.register_buffer("scale", torch.full((1,), 2.0, dtype=D).expand(CLASSES))
            self.places = nn.Buffer(torch.arange(9)[None].expand(2, -1), persistent=False)

        def forward(self, x):
            return self.layer(x) * self.scale + self.places.sum()

    torch.manual_seed(0)
    assert_exact(Expanded().double(), [(randn(5, 4), y(5)), (randn(3, 4), y(3))])


@pytest.mark.filterwarnings("ignore:.*torch.jit.(script|trace|trace_method).*is (deprecated|not supported).*")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_scripted_submodule(how):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    inner = nn.Linear(6, 6).double()
    model[0] = torch.jit.script(inner) if how == "script" else torch.jit.trace(inner, randn(2, 6))
    assert_exact(model, list(in_sizes((randn(8, 6), y()), [5, 3])))


def compiled_layers(model, backend):
    for at in (0, 2):
        model[at] = torch.compile(model[at], backend=backend)


def compiled_twice(model, backend):
    compiled_layers(model, backend)
    model.compile(backend=backend)


def compiled_in_place(model, backend):
    for module in model.modules():
        module.compile(backend=backend)


def compiled_forward(model, backend):
    for at in (0, 2):
        model[at].forward = torch.compile(model[at].forward, backend=backend)


def compiled_function(model, backend):
    model[1] = Calling(torch.compile(F.silu, backend=backend), torch.compile(model[2][0], backend=backend))


def compiled_at_the_first_call(model, backend):
    model[2] = CompilesItself(model[2], backend)


class Calling(nn.Module):
    def __init__(self, function, layer):
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, x):
        return self.layer(self.function(x))


class CompilesItself(nn.Module):
    def __init__(self, layer, backend):
        super().__init__()
        self.layer, self.backend, self.made = layer, backend, []

    def forward(self, x):
        if not self.made:
            self.made.append(torch.compile(self.layer, backend=self.backend))
        return self.made[0](x)


COMPILED = [
    compiled_layers,
    compiled_twice,
    compiled_in_place,
    compiled_forward,
    compiled_function,
    compiled_at_the_first_call,
]


def small_stack():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), block, nn.Linear(6, CLASSES)).double()


# torch.compile imports torch.jit
compiling = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@compiling
@pytest.mark.parametrize("way", COMPILED)
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_parts_of_a_model_that_are_compiled(way, backend):
    model = small_stack()
    way(model, backend)
    batches = list(in_sizes((randn(8, 6), y()), [5, 3]))
    footprint = commonweight.fisher(model, batches, folds=2)
    with torch.compiler.set_stance("force_eager"):
        reference, _ = loop_fisher(model, list(examples_of(batches)), nll)
    assert wrong(footprint, reference) == {}
    assert footprint.names == tuple(dict(model.named_parameters()))


@compiling
@pytest.mark.parametrize("how", ["wrapped", "in place", "attention"])
@pytest.mark.parametrize("rule", ["empirical", "exact"])
def test_compiled_blocks_of_an_encoder(how, rule):
    case = text_model("bert")
    model, batch = case.model.double(), text(8)
    plain = commonweight.fisher(model, [batch], fisher_type=rule)
    layers = model.get_submodule("bert.encoder.layer")
    for at, layer in enumerate(layers):
        if how == "wrapped":
            layers[at] = torch.compile(layer, backend="eager")
        elif how == "in place":
            layer.compile(backend="eager")
        else:
            layer.attention = torch.compile(layer.attention, backend="eager")
    found = commonweight.fisher(model, [batch], fisher_type=rule)
    assert ("_orig_mod" in "".join(found.names)) == (how != "in place")
    assert wrong({name.replace("_orig_mod.", ""): found[name] for name in found}, plain.tensors, 1e-12) == {}
    assert found.metadata["generic"] == plain.metadata["generic"] == {}


@compiling
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the compiler itself
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_a_compiled_part_stays_compiled(warm, fails):
    torch.compiler.reset()
    runs = []

    def backend(graph, inputs):
        def run(*args):
            runs.append(graph)
            return graph.forward(*args)

        return run

    model, batch = small_stack(), (randn(8, 6), y())
    model[2] = torch.compile(model[2], backend=backend)
    if warm:
        model(batch[0])
    before = len(runs)
    assert before == warm
    if fails:
        with pytest.raises(MeasurementError, match="expected a finite number"):
            commonweight.fisher(model, [(batch[0] / 0, batch[1])])
    else:
        assert commonweight.fisher(model, [batch]).trace() > 0
    assert len(runs) == before
    model(batch[0])
    assert len(runs) == before + 1


def test_a_rule_that_fails_while_it_is_checked_is_not_used(monkeypatch):
    def broken(module, attribute, x, g, size):
        raise ValueError("boom")

    torch.manual_seed(0)
    monkeypatch.setitem(rules.RULES, nn.Linear, {"weight": broken, "bias": rules.RULES[nn.Linear]["bias"]})
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    assert_exact(model, list(in_sizes((randn(8, 6), y()), [5, 3])))
    routes = commonweight.verify(model, (randn(8, 6), y())).routes
    assert routes["0.weight"].rule == "replay"
    assert "boom" in routes["0.weight"].reason
    assert routes["0.bias"].rule == "bias"


def test_a_failing_rule_of_the_whole_model_goes_one_by_one(monkeypatch):
    def broken(module, attribute, x, g, size):
        raise ValueError("boom")

    torch.manual_seed(0)
    monkeypatch.setitem(rules.RULES, nn.Linear, {"weight": broken, "bias": broken})
    assert_exact(nn.Linear(6, CLASSES).double(), [(randn(8, 6), y())])


# Lower precision


def test_inside_autocast():
    torch.manual_seed(0)
    model, batch = text_model("bert").model, text(8)
    with torch.autocast("cpu", torch.bfloat16):
        footprint = commonweight.fisher(model, list(in_sizes(batch, [5, 3])))
        reference, traces = loop_fisher(model, list(examples_of([batch])), nll)
    largest = max(float(value.max()) for value in reference.values()) ** 0.5
    differences = {
        name: float((footprint[name].double().sqrt() - value.sqrt()).abs().max()) / largest
        for name, value in reference.items()
    }
    assert max(differences.values()) < 0.02
    assert footprint.trace() == pytest.approx(sum(traces) / len(traces), rel=0.02)
    # The squares are not rounded to bfloat16: traces by layer and tensors are the same numbers.
    for layer, spread in footprint.spread.items():
        assert spread.total / 8 == pytest.approx(footprint.trace(layer), rel=1e-3, abs=1e-12), layer


# Experts


class ExpertBlock(nn.Module):
    """Mixture of experts as Mixtral writes it: a block that routes tokens to linear layers of its own."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(6, 3, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 7), nn.SiLU(), nn.Linear(7, 6)) for _ in range(3))

    def forward(self, x):
        size, length, width = x.shape
        flat = x.reshape(-1, width)
        weights, chosen = self.gate(flat).softmax(-1).topk(2, -1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = (chosen == number).nonzero(as_tuple=True)
            out.index_add_(0, token, expert(flat[token]) * weights[token, place, None])
        return out.reshape(size, length, width)


class WithExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.moe = nn.Linear(6, 6), nn.LayerNorm(6), ExpertBlock()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.moe(self.norm(x))).tanh().mean(1))


@pytest.mark.parametrize("sizes", [[8, 8, 8], [24], [1] * 16 + [8], [5] * 4 + [4]], ids=str)
def test_a_block_of_experts(sizes):
    torch.manual_seed(0)
    footprint = assert_exact(WithExperts().double(), list(in_sizes((randn(24, 4, 6), y(24)), sizes)))
    assert "moe.gate.weight" not in footprint.metadata["generic"]
