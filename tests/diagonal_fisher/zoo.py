"""Small models of every family, with the batches and the loss they are measured on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CLASSES = 3
VOCABULARY = 23


@dataclass(frozen=True)
class Case:
    """A model, its data as one batch of all rows, and what the engine is expected to do with it."""

    model: nn.Module
    batch: Any
    loss: str
    generic: frozenset[str] = field(default_factory=frozenset)
    """Parts of names of parameters that may take the generic route; everything else must take a rule."""


def images(size: int = 5, channels: int = 3, side: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(size, channels, side, side), torch.arange(size) % CLASSES


def vectors(size: int = 5, width: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(size, width), torch.arange(size) % CLASSES


def sequences(size: int = 5, length: int = 7, width: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(size, length, width), torch.arange(size) % CLASSES


def text(size: int = 5, length: int = 7, *, labels: str = "class") -> dict[str, Tensor]:
    ids = torch.randint(3, VOCABULARY, (size, length))
    mask = torch.ones_like(ids)
    for row in range(size):
        mask[row, length - row % 4 :] = 0
    ids = ids.masked_fill(mask == 0, 0)
    batch = {"input_ids": ids, "attention_mask": mask}
    if labels == "class":
        batch["labels"] = torch.arange(size) % CLASSES
    else:
        batch["labels"] = ids.masked_fill(mask == 0, -100)
    return batch


class Pool(nn.Module):
    """Mean over positions, then a linear head."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        out = out[0] if isinstance(out, tuple) else out
        return self.head(out.flatten(2).mean(2) if out.dim() == 4 else out.mean(1))


class Channels(nn.Module):
    """A convolutional body, mean over space, then a linear head."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(2).mean(2))


class Block(nn.Module):
    """Residual block with batch norm and in-place activations."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.short(x)
        return self.relu(out)


def resnet() -> Case:
    model = Channels(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), Block(4, 4), Block(4, 6, 2)), 6
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
    return Case(model, images(), "classification")


def convolutions_2d() -> Case:
    body = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2, stride=2, padding=1),
        nn.Conv2d(8, 6, (3, 1), padding="same", dilation=2, bias=False),
        nn.GroupNorm(2, 6),
        nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular", groups=6),
        nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2, output_padding=1, padding=1),
        nn.Conv2d(4, 4, 2, padding="same", padding_mode="reflect"),
    )
    return Case(Channels(body, 4), images(channels=4), "classification")


def convolutions_1d_3d() -> Case:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv1d(3, 4, 3, stride=2)
            self.bn = nn.BatchNorm1d(4)
            self.back = nn.ConvTranspose1d(4, 3, 3)
            self.three = nn.Conv3d(1, 2, 3, padding=1)
            self.back3 = nn.ConvTranspose3d(2, 3, 2, stride=2)
            self.head = nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            a = self.back(self.bn(self.one(x.flatten(2)))).mean(2)
            b = self.back3(self.three(x.unsqueeze(1))).flatten(2).mean(2)
            return self.head(torch.cat([a, b], 1))

    return Case(Both(), images(side=4), "classification")


def many_convolution_examples() -> Case:
    return Case(Channels(nn.Conv2d(2, 3, 3), 3), images(size=37, channels=2, side=5), "classification")


def mlp() -> Case:
    model = nn.Sequential(
        nn.Linear(6, 9), nn.ReLU(), nn.BatchNorm1d(9), nn.Linear(9, 4, bias=False), nn.Linear(4, CLASSES)
    )
    return Case(model, vectors(), "classification")


def wide_and_tall() -> Case:
    return Case(Pool(nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 11)), 11), sequences(), "classification")


class LookAlikeNorm(nn.Module):
    """Gemma's way to write RMS norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1.0 + self.weight)


def norms() -> Case:
    body = nn.Sequential(
        nn.LayerNorm(6),
        nn.Linear(6, 6),
        nn.LayerNorm((7, 6), bias=False),
        nn.RMSNorm(6),
        LookAlikeNorm(6),
        nn.Linear(6, 6),
    )
    return Case(Pool(body, 6), sequences(), "classification")


class Embedded(nn.Module):
    """Token, padded, and broadcast position embeddings in the ways people write them."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style = style
        self.tokens = nn.Embedding(VOCABULARY, 6, padding_idx=0)
        self.positions = nn.Embedding(9, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        length = input_ids.shape[1]
        places = torch.arange(length)
        if self.style == "row":
            places = places[None]
        elif self.style == "full":
            places = places.expand(input_ids.shape)
        x = self.tokens(input=input_ids) + self.positions(places)
        return self.head((x.tanh() * attention_mask[..., None]).sum(1))


def embedding(style: str) -> Case:
    return Case(Embedded(style), text(), "classification")


class TiedHead(nn.Module):
    """A language model whose head is its embedding: as a shared parameter, or by a functional call."""

    def __init__(self, *, functional: bool) -> None:
        super().__init__()
        self.functional = functional
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.mix = nn.Linear(6, 6)
        if not functional:
            self.head = nn.Linear(6, VOCABULARY, bias=False)
            self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.mix(self.embed(input_ids)).tanh()
        return F.linear(x, self.embed.weight) if self.functional else self.head(x)


class Repeated(nn.Module):
    """One layer of each kind, called several times."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.conv = nn.Conv1d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids) + self.embed(input_ids.flip(1)).tanh()
        for _ in range(3):
            x = x + self.norm(self.linear(input=x)).tanh()
            x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.head((x * attention_mask[..., None]).mean(1))


class Checkpointed(nn.Module):
    """Activation checkpointing: the forward hooks fire again inside the backward pass."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Linear(6, 6)
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.LayerNorm(8), nn.Linear(8, 6))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(2):
            x = x + checkpoint(self.inner, x, use_reentrant=self.reentrant)
        return self.head(x.mean(1))


class ClassToken(nn.Module):
    """Parameters on a module that has children."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, 6))
        self.pos_embed = nn.Parameter(torch.randn(1, 8, 6))
        self.scale = nn.Parameter(torch.randn(6))
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head((self.mix(x) * self.scale).tanh().mean(1))


class Attention(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Linear(6, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)
        self.after = nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        if not self.batch_first:
            x = x.transpose(0, 1)
        x = self.after(self.attention(x, x, x, need_weights=False)[0])
        return self.head(x.mean(1 if self.batch_first else 0))


def encoder_layers() -> Case:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Case(Pool(body, 6), sequences(), "classification")


class Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 6)
        self.cell = getattr(nn, kind)(6, 5, batch_first=True, bidirectional=kind == "GRU")
        self.head = nn.Linear(10 if kind == "GRU" else 5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.embed(x))[0].mean(1))


class LoopedCell(nn.Module):
    """A recurrent cell written as a loop over linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = torch.tanh(self.a(x[:, t]) + self.b(h))
        return self.head(h)


class Windows(nn.Module):
    """Windows folded into rows, batch first (a rule can fold them back) or window first (it cannot)."""

    def __init__(self, *, batch_major: bool) -> None:
        super().__init__()
        self.batch_major = batch_major
        self.embed = nn.Linear(6, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x[:, :6])
        windows = x.reshape(len(x), 3, 2, 6)
        if not self.batch_major:
            windows = windows.transpose(0, 1)
        windows = self.mix(windows.reshape(-1, 2, 6)).tanh()
        windows = windows.reshape(-1, 3, 2, 6) if self.batch_major else windows.reshape(3, -1, 2, 6).transpose(0, 1)
        return self.head(windows.mean((1, 2)))


class Experts(nn.Module):
    """A mixture of experts that gathers routed tokens into rows; one expert is not used by the first rows."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        choice = (x[..., 0] * 10).long().abs() % 3
        choice = torch.where(x[..., 1] > 1.2, torch.tensor(3), choice)
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            where = choice == e
            if where.any():
                out[where] = expert(x[where])
        return self.head(out.tanh().mean(1))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)
        self.spare = nn.Linear(6, CLASSES)
        self.called_in_vain = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        self.called_in_vain(x)
        return self.head(x)


def parametrised() -> Case:
    first, second, third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
    nn.utils.parametrizations.weight_norm(first)
    nn.utils.parametrizations.orthogonal(second)
    return Case(
        nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), third),
        vectors(),
        "classification",
    )


def frozen() -> Case:
    case = text_model("bert")
    for name, parameter in case.model.named_parameters():
        parameter.requires_grad_("classifier" in name or "layer.1" in name)
    return case


def bias_only_with_input_changed_in_place() -> Case:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)
            self.linear.weight.requires_grad_(False)
            self.head = nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = x * 1.0
            y = self.linear(x)
            x.add_(1.0)
            return self.head(y + x)

    return Case(Model(), vectors(), "classification", frozenset({"linear.bias"}))


def lora() -> Case:
    import peft

    case = text_model("bert")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    model = peft.get_peft_model(case.model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return Case(model, case.batch, case.loss)


def text_model(kind: str) -> Case:
    import transformers as t

    small = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    tokens = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if kind == "bert":
        config = t.BertConfig(**small, **tokens, max_position_embeddings=16, num_labels=CLASSES)
        return Case(t.BertForSequenceClassification(config), text(), "classification")
    if kind == "albert":
        config = t.AlbertConfig(**small, **tokens, embedding_size=6, max_position_embeddings=16, num_labels=CLASSES)
        return Case(t.AlbertForSequenceClassification(config), text(), "classification")
    if kind == "bert-masked":
        config = t.BertConfig(**small, **tokens, max_position_embeddings=16)
        return Case(t.BertForMaskedLM(config), text(labels="token"), "token")
    if kind == "gpt2":
        config = t.GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=16, **tokens)
        return Case(t.GPT2LMHeadModel(config), text(labels="token"), "causal_lm")
    if kind == "llama":
        config = t.LlamaConfig(**small, **tokens, num_key_value_heads=1)
        return Case(t.LlamaForCausalLM(config), text(labels="token"), "causal_lm")
    if kind == "mixtral":
        config = t.MixtralConfig(**small, **tokens, num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2)
        config._experts_implementation = "eager"  # the fused one has no float64
        return Case(t.MixtralForCausalLM(config), text(labels="token"), "causal_lm")
    if kind == "t5":
        config = t.T5Config(
            d_model=8,
            d_kv=4,
            d_ff=12,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
            relative_attention_num_buckets=8,
            vocab_size=VOCABULARY,
            pad_token_id=0,
            eos_token_id=2,
        )
        return Case(
            t.T5ForConditionalGeneration(config),
            text(labels="token"),
            "seq2seq",
            frozenset({"relative_attention_bias"}),
        )
    if kind == "vit":
        config = t.ViTConfig(**small, image_size=8, patch_size=4, num_labels=CLASSES)
        pixels, labels = images()
        return Case(
            t.ViTForImageClassification(config),
            {"pixel_values": pixels, "labels": labels},
            "classification",
        )
    if kind == "swin":
        config = t.SwinConfig(
            image_size=16, patch_size=2, embed_dim=4, depths=[2, 1], num_heads=[2, 2], window_size=2, num_labels=CLASSES
        )
        pixels, labels = images(side=16)
        return Case(
            t.SwinForImageClassification(config),
            {"pixel_values": pixels, "labels": labels},
            "classification",
        )
    raise ValueError(kind)


ZOO: Mapping[str, Callable[[], Case]] = {
    "mlp": mlp,
    "wide-and-tall": wide_and_tall,
    "norms": norms,
    "embedding-full": lambda: embedding("full"),
    "embedding-row": lambda: embedding("row"),
    "embedding-arange": lambda: embedding("arange"),
    "resnet": resnet,
    "convolutions-2d": convolutions_2d,
    "convolutions-1d-3d": convolutions_1d_3d,
    "convolution-37-examples": many_convolution_examples,
    "tied": lambda: Case(TiedHead(functional=False), text(labels="token"), "causal_lm"),
    "tied-functional": lambda: Case(TiedHead(functional=True), text(labels="token"), "causal_lm", frozenset({"embed"})),
    "repeated": lambda: Case(Repeated(), text(), "classification"),
    "checkpoint": lambda: Case(Checkpointed(reentrant=False), sequences(), "classification"),
    "checkpoint-reentrant": lambda: Case(Checkpointed(reentrant=True), sequences(), "classification"),
    "class-token": lambda: Case(ClassToken(), sequences(), "classification"),
    "attention": lambda: Case(Attention(batch_first=True), sequences(), "classification"),
    "attention-time-first": lambda: Case(
        Attention(batch_first=False), sequences(), "classification", frozenset({"attention", "after"})
    ),
    "encoder-layers": encoder_layers,
    "lstm": lambda: Case(Recurrent("LSTM"), sequences(), "classification"),
    "gru": lambda: Case(Recurrent("GRU"), sequences(), "classification"),
    "looped-cell": lambda: Case(LoopedCell(), sequences(), "classification"),
    "windows": lambda: Case(Windows(batch_major=True), sequences(), "classification"),
    "windows-first": lambda: Case(Windows(batch_major=False), sequences(), "classification", frozenset({"mix"})),
    "experts": lambda: Case(Experts(), sequences(size=9), "classification", frozenset({"experts"})),
    "unused": lambda: Case(Unused(), vectors(), "classification"),
    "parametrised": parametrised,
    "frozen": frozen,
    "bias-only-in-place": bias_only_with_input_changed_in_place,
    "lora": lora,
    **{
        kind: (lambda kind=kind: text_model(kind))
        for kind in ("bert", "bert-masked", "albert", "gpt2", "llama", "mixtral", "t5", "vit", "swin")
    },
}
