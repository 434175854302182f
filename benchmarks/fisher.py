"""Time and memory of the diagonal Fisher, as ratios to one ordinary batched forward and backward pass.

Every contender runs in turn on the same padded batches in one process, after a warm-up; a figure is the median over the
rounds of the ratio to the ordinary pass of the same round. Verification is outside the clock. Memory is measured twice,
each in a fresh process per contender: the peak of the tensors that PyTorch allocates (what
``torch.cuda.max_memory_allocated`` counts on a GPU), which repeats to the byte, and the peak of resident memory, which
holds the allocator's and the matrix library's own buffers and moves by several megabytes from run to run.

    python benchmarks/fisher.py --out benchmarks/results/fisher.json

``--cases``, ``--contenders``, ``--parts`` and ``--meters`` (of memory) select; ``--rounds`` sets the number of
interleaved rounds. A result file that is there already keeps what is not run again, and says for each part where it was
run last.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commonweight.diagonal_fisher.batch import BatchReader
from commonweight.diagonal_fisher.collector import FisherCollector
from commonweight.diagonal_fisher.measure import fisher, verify

if TYPE_CHECKING:
    from collections.abc import Callable

warnings.filterwarnings("ignore")


@dataclass(frozen=True)
class Case:
    """A model, its batches and its per-example loss."""

    model: nn.Module
    batches: list
    loss: str
    bound: float
    """The ratio this project asks of itself on two CPU cores."""

    def logits(self, batch) -> Tensor:
        if isinstance(batch, dict):
            return self.model(**{key: value for key, value in batch.items() if key != "labels"}).logits
        return self.model(batch[0])

    def losses(self, batch) -> Tensor:
        logits = self.logits(batch)
        labels = batch["labels"] if isinstance(batch, dict) else batch[1]
        if self.loss == "causal_lm":
            return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").sum(1)
        return F.cross_entropy(logits, labels, reduction="none")


def text_batches(vocabulary: int, size: int, length: int, count: int, *, language_model: bool) -> list:
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        ids = torch.randint(5, vocabulary, (size, length), generator=generator)
        labels = ids if language_model else torch.randint(2, (size,), generator=generator)
        batches.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return batches


def bert(hidden: int, layers: int, heads: int, batch: int, count: int, bound: float) -> Case:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden
    )
    batches = text_batches(config.vocab_size, batch, 32, count, language_model=False)
    return Case(BertForSequenceClassification(config), batches, "classification", bound)


def gpt2() -> Case:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=384, n_layer=6, n_head=6, use_cache=False)
    batches = text_batches(config.vocab_size, 8, 64, 1, language_model=True)
    return Case(GPT2LMHeadModel(config), batches, "causal_lm", 1.6)


def llama(*, experts: int = 0) -> Case:
    """RMSNorm, gated layers, two query heads to a key head; with experts the layers of Mixtral."""
    from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 32000, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 4}
    if experts:
        model = MixtralForCausalLM(MixtralConfig(**sizes, num_local_experts=experts, use_cache=False))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes, use_cache=False))
    return Case(model, text_batches(32000, 8, 64, 1, language_model=True), "causal_lm", 2.0)


def vit() -> Case:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, image_size=64, num_labels=10
    )
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(16, 3, 64, 64, generator=generator) for _ in range(2)]
    batches = [{"pixel_values": each, "labels": torch.arange(16) % 10} for each in images]
    return Case(ViTForImageClassification(config), batches, "classification", 2.0)


def mlp() -> Case:
    model = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(128, 784, generator=generator), torch.arange(128) % 10) for _ in range(16)]
    return Case(model, batches, "classification", 1.3)


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.short = nn.Identity()
        if stride > 1 or inner != outer:
            self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.short(x))


def resnet() -> Case:
    """ResNet-18's stages at half width, for 32×32 images."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    inner = 32
    for outer, stride in ((32, 1), (64, 2), (128, 2), (256, 2)):
        layers += [Block(inner, outer, stride), Block(outer, outer, 1)]
        inner = outer
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 10))
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(32, 3, 32, 32, generator=generator), torch.arange(32) % 10) for _ in range(2)]
    return Case(model, batches, "classification", 1.3)


CASES: dict[str, Callable[[], Case]] = {
    "bert-22M": lambda: bert(384, 6, 12, 16, 4, 1.25),
    "bert-110M": lambda: bert(768, 12, 12, 8, 1, 1.35),
    "gpt2-6x384": gpt2,
    "mlp-784-1024-1024-10": mlp,
    "resnet-32x32": resnet,
    "vit-64x64": vit,
    "llama-4x256": llama,
    "mixtral-4x256": lambda: llama(experts=4),
}


LONGER = 16
"""With folds the fixed costs (eight sets of accumulators, files) belong to a measurement of a usual length."""


PARTS = ["time", "folds", "exact", "memory"]


class CannotRunError(Exception):
    """A contender cannot measure this case, with the reason."""


def ordinary(case: Case) -> Callable[[], None]:
    case.model.eval()

    def run() -> None:
        for batch in case.batches:
            case.model.zero_grad(set_to_none=True)
            case.losses(batch).mean().backward()

    return run


def ours(case: Case, fisher_type: str = "empirical") -> Callable[[], None]:
    reader = BatchReader()
    read = [reader.read(batch) for batch in case.batches]
    collector = FisherCollector(case.model, loss=case.loss, fisher_type=fisher_type)
    with collector:
        collector.choose_routes(read[:1])
        collector.update(read[0])
        collector.take()
    generic = [name for name, route in collector.routes.items() if route.route != "rule"]
    if generic:
        raise CannotRunError(f"these parameters took another route: {generic}")

    def run() -> None:
        with collector:
            for batch in read:
                collector.update(batch)

    return run


def ours_in_folds(case: Case, folds: int) -> Callable[[], None]:
    """Folds in memory, the comparison of rules included."""

    def run() -> None:
        fisher(case.model, case.batches * LONGER, loss=case.loss, folds=folds)

    return run


def ours_in_written_folds(case: Case, folds: int) -> Callable[[], None]:
    """Folds flushed to disk one by one, the comparison of rules included; the files go with the run."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            fisher(case.model, case.batches * LONGER, loss=case.loss, folds=folds, folder=f"{folder}/f")

    return run


def comparison(case: Case) -> Callable[[], None]:
    """The comparison of rules alone."""
    return lambda: verify(case.model, case.batches[0], loss=case.loss)


def ordinary_longer(case: Case) -> Callable[[], None]:
    once = ordinary(case)

    def run() -> None:
        for _ in range(LONGER):
            once()

    return run


def examples_of(batch) -> list:
    size = len(batch["labels"]) if isinstance(batch, dict) else len(batch[1])
    if isinstance(batch, dict):
        return [{key: value[i : i + 1] for key, value in batch.items()} for i in range(size)]
    return [(batch[0][i : i + 1], batch[1][i : i + 1]) for i in range(size)]


def loop(case: Case) -> Callable[[], None]:
    """What users write, as in the notebook this project starts from: batch size 1, ``fim += grad * grad`` by name."""
    case.model.eval()
    totals = {name: torch.zeros_like(parameter) for name, parameter in case.model.named_parameters()}

    def run() -> None:
        for batch in case.batches:
            for example in examples_of(batch):
                case.model.zero_grad()
                torch.autograd.backward(case.losses(example).sum(), retain_graph=True)
                for name, parameter in case.model.named_parameters():
                    if parameter.grad is not None:
                        totals[name] += (parameter.grad * parameter.grad).detach().cpu()

    return run


def lean_loop(case: Case) -> Callable[[], None]:
    """The same loop at its best: graphs freed, the square fused with the sum."""
    case.model.eval()
    parameters = list(case.model.parameters())
    totals = [torch.zeros_like(parameter) for parameter in parameters]

    def run() -> None:
        for batch in case.batches:
            for example in examples_of(batch):
                case.model.zero_grad(set_to_none=True)
                case.losses(example).sum().backward()
                for total, parameter in zip(totals, parameters, strict=True):
                    if parameter.grad is not None:
                        total.addcmul_(parameter.grad, parameter.grad)

    return run


def vmap(case: Case) -> Callable[[], None]:
    """The recipe of torch.func: vmap over the gradient of one example, in chunks of 8.

    Masks of ones are left out: the library's mask code cannot run under vmap.
    """
    from torch.func import functional_call, grad
    from torch.func import vmap as torch_vmap

    model = case.model.eval()
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}

    def loss(parameters, example):
        one = {key: value.unsqueeze(0) for key, value in example.items()}
        labels = one.pop("labels")
        if "pixels" in one:
            logits = functional_call(model, (parameters, buffers), (one["pixels"],))
        else:
            logits = functional_call(model, (parameters, buffers), (), one).logits
        if case.loss == "causal_lm":
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return F.cross_entropy(logits, labels, reduction="sum")

    gradients = torch_vmap(grad(loss), in_dims=(None, 0), chunk_size=8)

    def run() -> None:
        for batch in case.batches:
            columns = dict(batch) if isinstance(batch, dict) else {"pixels": batch[0], "labels": batch[1]}
            columns.pop("attention_mask", None)
            for name, gradient in gradients(parameters, columns).items():
                totals[name] += gradient.square().sum(0)

    return run


def opacus(case: Case) -> Callable[[], None]:
    from opacus import GradSampleModule

    model = GradSampleModule(case.model.train(), loss_reduction="sum", strict=False)
    for module in case.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    totals = [torch.zeros_like(parameter) for parameter in model.parameters()]

    def run() -> None:
        for batch in case.batches:
            model.zero_grad(set_to_none=True)
            wrapped = Case(model, [], case.loss, 0)
            wrapped.losses(batch).sum().backward()
            for total, parameter in zip(totals, model.parameters(), strict=True):
                if parameter.grad_sample is not None:
                    total += parameter.grad_sample.square().sum(0)
                parameter.grad_sample = None

    return run


def backpack(case: Case) -> Callable[[], None]:
    if isinstance(case.batches[0], dict):
        raise CannotRunError("no rules for LayerNorm, Conv1D and keyword calls (its documentation; not run)")
    import backpack as bp
    from backpack.extensions import SumGradSquared

    model = bp.extend(case.model.eval(), use_converter=not isinstance(case.model, nn.Sequential))
    loss = bp.extend(nn.CrossEntropyLoss(reduction="sum"))
    totals = [torch.zeros_like(parameter) for parameter in model.parameters()]

    def run() -> None:
        for inputs, targets in case.batches:
            model.zero_grad(set_to_none=True)
            with bp.backpack(SumGradSquared()):
                loss(model(inputs), targets).backward()
            for total, parameter in zip(totals, model.parameters(), strict=True):
                total += parameter.sum_grad_squared

    return run


def nngeometry(case: Case) -> Callable[[], None]:
    if isinstance(case.batches[0], dict):
        raise CannotRunError("takes tuples with a tensor first, not mappings (its source; not run)")
    from nngeometry.backend import TorchHooksJacobianBackend
    from nngeometry.layercollection import LayerCollection
    from nngeometry.object import PMatDiag
    from torch.utils.data import DataLoader, TensorDataset

    model = case.model.eval()
    layers = LayerCollection.from_model(model)
    inputs = torch.cat([batch[0] for batch in case.batches])
    targets = torch.cat([batch[1] for batch in case.batches])
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=len(case.batches[0][1]))

    def negative_log_likelihood(*batch):
        x, y = batch
        return F.cross_entropy(model(x), y, reduction="none").unsqueeze(1)

    generator = TorchHooksJacobianBackend(model=model, function=negative_log_likelihood, layer_collection=layers)

    def run() -> None:
        PMatDiag(generator=generator, examples=loader)

    return run


def kronfluence(case: Case) -> Callable[[], None]:
    """Its diagonal strategy, which squares the per-example gradients of linear layers and convolutions, no others."""
    from kronfluence.arguments import FactorArguments
    from kronfluence.factor.eigen import fit_lambda_matrices_with_loader
    from kronfluence.module.utils import wrap_tracked_modules
    from kronfluence.task import Task
    from kronfluence.utils.state import State

    class Loss(Task):
        def compute_train_loss(self, batch, model, sample=False):  # noqa: ARG002 - the labels given
            return Case(model, [], case.loss, 0).losses(batch).sum()

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    arguments = FactorArguments(strategy="diagonal", use_empirical_fisher=True)
    model, task = case.model.eval().requires_grad_(requires_grad=False), Loss()
    model = wrap_tracked_modules(model, task, factor_args=arguments)

    def run() -> None:
        fit_lambda_matrices_with_loader(model, State(), task, case.batches, arguments, disable_tqdm=True)

    return run


def laplace(case: Case) -> Callable[[], None]:
    if isinstance(case.batches[0], dict):
        raise CannotRunError("holds the gradients of a whole batch at once, 1.4 GB here (its source; not run)")
    from laplace.curvature import CurvlinopsEF

    backend = CurvlinopsEF(case.model.eval(), "classification")

    def run() -> None:
        for inputs, targets in case.batches:
            backend.diag(inputs, targets)

    return run


CONTENDERS: dict[str, Callable[[Case], Callable[[], None]]] = {
    "ordinary": ordinary,
    "commonweight": ours,
    "loop": loop,
    "lean loop": lean_loop,
    "vmap": vmap,
    "opacus": opacus,
    "backpack": backpack,
    "nngeometry": nngeometry,
    "kronfluence": kronfluence,
    "laplace-torch": laplace,
}


def time_case(name: str, contenders: list[str], rounds: int) -> dict:
    """Interleave the contenders and take the ratio to the ordinary pass round by round."""
    runs, reasons = {}, {}
    for contender in contenders:
        torch.manual_seed(0)
        try:
            runs[contender] = CONTENDERS[contender](CASES[name]())
            runs[contender]()
        except Exception as error:
            runs.pop(contender, None)
            reasons[contender] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    seconds = interleave(runs, rounds)
    return {
        "bound": CASES[name]().bound,
        "seconds": {contender: statistics.median(values) for contender, values in seconds.items()},
        "ratio": ratios(seconds, "ordinary"),
        "cannot_run": reasons,
    }


def interleave(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {contender: [] for contender in runs}
    for _ in range(rounds):
        for contender, run in runs.items():
            gc.collect()
            start = time.perf_counter()
            run()
            seconds[contender].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    table = {}
    for contender, values in seconds.items():
        each = sorted(value / one for value, one in zip(values, seconds[base], strict=True))
        table[contender] = {"median": statistics.median(each), "min": each[0], "max": each[-1]}
    return table


def time_folds(name: str, rounds: int) -> dict:
    """One fold and eight against the ordinary pass over the same batches, ``LONGER`` times as many as elsewhere."""
    torch.manual_seed(0)
    runs = {"ordinary": ordinary_longer(CASES[name]()), "comparison of rules": comparison(CASES[name]())}
    for folds in (1, 8):
        runs[f"folds={folds}"] = ours_in_folds(CASES[name](), folds)
        runs[f"folds={folds}, written to a folder"] = ours_in_written_folds(CASES[name](), folds)
    for run in runs.values():
        run()
    seconds = interleave(runs, rounds)
    case = CASES[name]()
    rows = LONGER * sum(len(examples_of(batch)) for batch in case.batches)
    return {
        "rows": rows,
        "ratio": ratios(seconds, "ordinary"),
        "ratio to folds=1": ratios(seconds, "folds=1"),
        "ratio to folds=1, written": ratios(seconds, "folds=1, written to a folder"),
        "rows that the comparison takes as long as": rows
        * statistics.median(
            one / (whole - one) for one, whole in zip(seconds["comparison of rules"], seconds["folds=1"], strict=True)
        ),
    }


def time_exact(name: str, rounds: int) -> dict:
    """The expectation over C classes against the ordinary pass; at most 1 + 0.7 C of it are asked for."""
    torch.manual_seed(0)
    case = CASES[name]()
    classes = case.logits(case.batches[0]).shape[-1]
    runs = {"ordinary": ordinary(CASES[name]()), "exact": ours(case, "exact")}
    for run in runs.values():
        run()
    return {
        "classes": classes,
        "bound": 1 + 0.7 * classes,
        "ratio": ratios(interleave(runs, rounds), "ordinary"),
    }


def peak_bytes(name: str, contender: str, factor: int, kind: str) -> int:
    """Peak memory of a fresh process that runs one contender on batches ``factor`` times as large."""
    script = (
        "import sys; sys.path.insert(0, 'benchmarks'); import fisher\n"
        f"fisher.run_for_memory({name!r}, {contender!r}, {factor}, {kind!r})"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(result.stdout.split()[-1])


def peak_of_tensors(run: Callable[[], None]) -> int:
    """The most bytes that tensors allocated by a function held at any one moment."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    changes = [
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    held = peak = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        held += change
        peak = max(peak, held)
    if not peak:
        raise RuntimeError("the profiler saw no allocation")
    return peak


def peak_of_this_process() -> int:
    """The high-water mark of resident memory since this program started, in bytes (Linux).

    Not ``getrusage``: its figure is inherited from the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def run_for_memory(name: str, contender: str, factor: int, kind: str) -> None:
    """Run one contender on one batch made ``factor`` times as large, and print its peak.

    Of ``commonweight`` the peak of tensors is that of measuring alone; resident memory has seen the comparison before.
    """
    torch.manual_seed(0)
    case = CASES[name]()
    first = case.batches[0]
    if isinstance(first, dict):
        batch = {key: value.repeat(factor, *[1] * (value.dim() - 1)) for key, value in first.items()}
    else:
        batch = tuple(value.repeat(factor, *[1] * (value.dim() - 1)) for value in first)
    case = Case(case.model, [batch], case.loss, case.bound)

    def verified() -> None:
        fisher(case.model, case.batches, loss=case.loss)

    def folds() -> None:
        with tempfile.TemporaryDirectory() as folder:
            fisher(case.model, case.batches * 2, loss=case.loss, folds=2, folder=f"{folder}/f")

    whole = {"verified": verified, "folds": folds}
    run = whole[contender] if contender in whole else CONTENDERS[contender](case)
    if kind == "tensors":
        print(peak_of_tensors(run))
    else:
        run()
        print(peak_of_this_process())


def memory(name: str, meters: list[str]) -> dict:
    """Peak above that of the ordinary pass, in copies of the parameters (float32) after taking off one layer."""
    model = CASES[name]().model
    copy = sum(parameter.numel() * 4 for parameter in model.parameters())
    layer = max(parameter.numel() * 4 for parameter in model.parameters())
    figures: dict = {"parameter_bytes": copy, "largest_layer_bytes": layer}
    for kind in meters:
        figures[kind] = {}
        for factor in (1, 4):
            base = peak_bytes(name, "ordinary", factor, kind)
            for contender in ("commonweight", "verified", "folds"):
                above = peak_bytes(name, contender, factor, kind) - base
                key = f"{contender}, batch x{factor}: copies above ordinary, less one layer"
                figures[kind][key] = (above - layer) / copy
    return figures


PACKAGES = (
    "torch",
    "transformers",
    "opacus",
    "backpack-for-pytorch",
    "nngeometry",
    "kronfluence",
    "laplace-torch",
    "curvlinops-for-pytorch",
)


def environment() -> dict:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "versions": versions,
    }


def as_markdown(results: dict) -> str:
    """The table of the README."""
    shown = [contender for contender in CONTENDERS if contender != "ordinary"]
    lines = [
        "| case | asked of commonweight | " + " | ".join(shown) + " |",
        "| --- | ---: |" + " ---: |" * len(shown),
    ]
    for name, case in results["time"].items():
        cells = [
            f"{case['ratio'][contender]['median']:.2f}" if contender in case["ratio"] else "–" for contender in shown
        ]
        cells[0] = f"**{cells[0]}**"
        lines.append(f"| {name} | {case['bound']:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what was asked for and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--meters", nargs="+", choices=["tensors", "resident"], default=["tensors", "resident"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print a result already written as a Markdown table, run nothing")
    options = parser.parse_args()
    if options.table:
        print(as_markdown(json.loads(options.table.read_text())), end="")
        return
    contenders = list(dict.fromkeys(["ordinary", *options.contenders]))
    results: dict = {**{part: {} for part in PARTS}, "environment": {}}
    if options.out and options.out.exists():
        results |= json.loads(options.out.read_text())
    for name in options.cases if "time" in options.parts else []:
        found, before = time_case(name, contenders, options.rounds), results["time"].get(name, {})
        kept = {
            part: before.get(part, {}) | found[part] for part in ("ratio", "seconds", "cannot_run") if part in found
        }
        results["time"][name] = found | kept  # contenders that are not run again stay
        shown = {contender: round(each["median"], 3) for contender, each in results["time"][name]["ratio"].items()}
        print(name, shown, results["time"][name]["cannot_run"], flush=True)
    for name in ("bert-22M", "mlp-784-1024-1024-10") if "folds" in options.parts else ():
        if name in options.cases:
            results["folds"][name] = time_folds(name, options.rounds)
            print("folds", results["folds"][name], flush=True)
    for name in ("bert-22M", "mlp-784-1024-1024-10", "resnet-32x32") if "exact" in options.parts else ():
        if name in options.cases:
            results["exact"][name] = time_exact(name, options.rounds)
            print("exact", name, results["exact"][name], flush=True)
    if "memory" in options.parts:
        for name in options.cases:
            results["memory"][name] = results["memory"].get(name, {}) | memory(name, options.meters)
            print(name, results["memory"][name], flush=True)
    results["environment"] |= dict.fromkeys(options.parts, environment())
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
