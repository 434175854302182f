"""Supermask networks: many tasks in one frozen network."""

from __future__ import annotations

import contextlib
import json
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from commonweight.base.errors import UsageError
from commonweight.supermasks import files, passes
from commonweight.supermasks.bits import Bits
from commonweight.supermasks.conversion import Options, convert, copied
from commonweight.supermasks.influence import read_alphas
from commonweight.supermasks.rules import Threshold, rule_of
from commonweight.supermasks.selection import Mixture, Selection, check_mixture

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from commonweight.supermasks.influence import Influence
    from commonweight.supermasks.layer import MaskedWeight
    from commonweight.supermasks.norm import Statistics
    from commonweight.supermasks.rules import MaskRule


@final
class SupermaskNetwork(nn.Module):
    """A network whose weights never change, with one learned mask and one set of batch-norm statistics per task.

    Every trainable Linear and Conv weight is masked: ``weight * mask``, with a mask that a rule makes from the task's
    scores. Scores are trained with the straight-through gradient (the mask's derivative by its score is taken as 1, so
    a score's gradient is the masked weight's gradient times the weight). Nothing else is trained, unless
    ``batch_norm="affine"``.

    Sources: SupSup (Wortsman et al. 2020, https://arxiv.org/abs/2006.14769); with ``weights="keep"`` Piggyback
    (Mallya et al. 2018, https://arxiv.org/abs/1801.06519), whose own score initialisation and threshold differ.

    Which task is on is always said: :meth:`switch` or ``with net.on(task):``. Only the selected, unfinished task has
    parameters that require a gradient, and only its statistics can move. The random state of PyTorch is not touched.
    Methods give out copies, and raise UsageError where there is no task or masked weight of a name.

    Args:
        model: Any module; it is copied, and stays as it is. A parameter frozen beforehand stays frozen and unmasked, a
            weight used by several layers has one mask. Convert it with ``SyncBatchNorm.convert_sync_batchnorm`` before,
            not after.
        rule: From scores to masks: :class:`Threshold` or :class:`TopK`.
        weights: ``"signed_constant"`` draws masked weights anew, of one size and random signs, sets their biases to 0
            and batch-norm statistics to mean 0 and variance 1; ``"keep"`` keeps everything, for a pretrained model.
        scores: Whether tasks start from independent scores, or all from the same.
        batch_norm: ``"statistics"`` are per task, and weight and bias frozen and shared; with ``"affine"`` each task
            trains its own of those too.
        include: Which weights to mask, as shell patterns over names of parameters and modules; None for all.
        exclude: Which parameters stay whole.
        seed: Of weights and score initialisations, at least 0.
        weights_seed: Of the weights alone, where several networks are to train other masks in the same frozen weights:
            only masks of one frozen network can be compared bit by bit. None is ``seed``.

    Raises:
        UsageError: If an option is unknown, or the model has weight matrices that cannot be masked and are not excluded
            (recurrent layers, embeddings, packed attention projections), weights that are computed from others (pruned,
            weight-normed, parametrised), or something else that tasks would share unnoticed: the message names all of
            them and says how to go on.

    Example:
        >>> net = SupermaskNetwork(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)))
        >>> net.masked, net.norms
        (('0.weight', '3.weight'), ('1',))
        >>> net.add_task("a")
        >>> net.switch("a")
        >>> optimiser = torch.optim.Adam(net.trainable("a"), lr=1e-3)
        >>> net(torch.ones(3, 4)).square().sum().backward()
        >>> optimiser.step()
        >>> net.finish("a", keep_scores=False)
        >>> net.mask("a", "0.weight").shape, net.bits("a", "0.weight").nbytes
        (torch.Size([8, 4]), 4)
    """

    def __init__(
        self,
        model: nn.Module,
        rule: MaskRule | None = None,
        *,
        weights: Literal["signed_constant", "keep"] = "signed_constant",
        scores: Literal["independent", "shared"] = "independent",
        batch_norm: Literal["statistics", "affine"] = "statistics",
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        seed: int = 0,
        weights_seed: int | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        options = Options(
            Threshold() if rule is None else rule, weights, scores, batch_norm, include, exclude, seed, weights_seed
        )
        super().__init__()
        self._moved: dict[int, set[int]] = {}
        self._selection = Selection()
        self._names = self._selection.names
        self._options = options
        self._parts = convert(copied(model), options, self._selection)
        self.model = self._parts.model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the selected task's network.

        Returns:
            What the model returns.

        Raises:
            UsageError: If no task is selected, tasks are superposed in training mode, ``parametrize.cached()`` is on,
                or reentrant checkpointing calls it in a backward pass. A backward pass from what it returns, while
                another task is selected, is one too.
        """
        if self._selection.mixture is None:
            if not self._selection.unmasked:
                self._selection.current()
        elif self.training:
            raise UsageError("a superposition uses stored statistics: expected evaluation mode; call net.eval() first")
        if parametrize._cache_enabled:
            raise UsageError(
                "parametrize.cached() around the network would keep the masks of the task that was on: leave it out, "
                "the network caches each call itself"
            )
        if not torch.compiler.is_compiling() and passes.is_rerun():
            raise UsageError(
                "reentrant checkpointing around the network runs it again in the backward pass, on whatever task is on "
                "then: pass use_reentrant=False, or checkpoint parts of the model instead"
            )
        if self.training and torch.is_grad_enabled() and self._selection.task in self._selection.finished:
            warnings.warn(
                f"task {self.task!r} is finished, so nothing is trained; select another with net.switch(...), or call "
                "net.eval() to predict",
                stacklevel=2,
            )
        with self._selection.one_call() as made:
            outputs = self.model(*args, **kwargs)
        if torch.is_grad_enabled() and not all(with_gradient for _, with_gradient in made):
            self._selection.tie(outputs)  # what ran without a gradient may be run again for one (checkpointing)
        return outputs

    # Tasks

    def add_task(self, name: str) -> None:
        """Add a task, with scores that are drawn and not trained; the selected task stays what it is.

        Raises:
            UsageError: If the name is taken, or not a text with something in it.
        """
        if not isinstance(name, str) or not name:
            raise UsageError(f"a task is called by a non-empty text, got {name!r}")
        if name in self._names:
            raise UsageError(f"there is a task {name!r} already; choose another name, or switch to it")
        index = len(self._names)
        for weight, mask in self._parts.masks.items():
            mask.add(index, self._parts.weight(weight))
        for norm in self._parts.norms.values():
            norm.add(index)
        self._names.append(name)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks, in the order they were added."""
        return tuple(self._names)

    @property
    def task(self) -> str | None:
        """The selected task, or None."""
        return None if self._selection.task is None else self._names[self._selection.task]

    def switch(self, task: str | None) -> None:
        """Select a task, or none; gradients of all others are dropped, so that no optimiser can move them.

        Backward passes belong where the forward pass was: one through a task that is not selected is a UsageError.
        """
        index = None if task is None else self._index(task)
        for parameter in self._trained_beside(index):
            parameter.grad = None
        self._select(index)

    @contextlib.contextmanager
    def on(self, task: str) -> Iterator[None]:
        """Select a task for a while; afterwards the former one is selected again.

        Meanwhile the other tasks have no gradients; afterwards they have theirs back, and the task keeps what it got,
        for an optimiser's step. Its backward passes belong inside: see :meth:`switch`.

        Yields:
            Nothing.
        """
        index, former, mixture = self._index(task), self._selection.task, self._selection.mixture
        gradients = [(parameter, parameter.grad) for parameter in self._trained_beside(index)]
        for parameter, _ in gradients:
            parameter.grad = None
        self._select(index)
        try:
            yield
        finally:
            self._select(former)
            self._selection.mixture = mixture
            for parameter, gradient in gradients:
                parameter.grad = gradient

    def trainable(self, task: str) -> list[nn.Parameter]:
        """List what an optimiser of a task gets: its scores and, with ``batch_norm="affine"``, its weights and biases.

        They require a gradient only while the task is selected.

        Returns:
            The parameters, in model order; batch norms behind masked weights.

        Raises:
            UsageError: If the task is finished.
        """
        return self._trained(self._unfinished(task))

    def is_finished(self, task: str) -> bool:
        """Say whether a task is finished."""
        return self._index(task) in self._selection.finished

    def finish(self, task: str, batches: Iterable[Any] | None = None, *, keep_scores: bool = True) -> None:
        """Finish a task: its mask becomes packed bits, and nothing of it changes any more, in training mode neither.

        What :meth:`trainable` gave is let go: an optimiser that still holds it moves nothing of the network. An
        influence that is on is consolidated first; outputs stay the same to the last bit.

        Args:
            task: Its name.
            batches: Its training batches, over which statistics are measured anew first, as :meth:`reestimate` does:
                running ones are of the last batches, while the mask still moved. None keeps those.
            keep_scores: Whether its scores are kept, for later tasks to start from, or dropped, which leaves one bit
                per weight and the statistics.

        Raises:
            UsageError: If it is finished already.
            MeasurementError: If a score is nan or infinite.
        """
        if batches is not None:
            self.reestimate(task, batches)
        index = self._unfinished(task)
        for mask in self._parts.masks.values():
            mask.check_scores(index)
        for parameter in self._trained(index):
            parameter.requires_grad_(False)
            parameter.grad = None
        for mask in self._parts.masks.values():
            mask.consolidate(index)
            mask.hold_bits(index, mask.bits(index))
            scores = mask.scores(index)
            if scores is None or not keep_scores:
                mask.drop_scores(index)
            else:
                mask.hold_scores(index, scores.detach().clone())
        for norm in self._parts.norms.values():
            norm.settle(index)
        self._selection.finished.add(index)

    def drop_scores(self, task: str) -> None:
        """Let go of a finished task's scores: one bit per weight stays, of 33 with scores in float32.

        Later tasks can no longer start from them.

        Raises:
            UsageError: If the task is not finished.
        """
        index = self._index(task)
        if index not in self._selection.finished:
            raise UsageError(f"task {task!r} is not finished, and is trained by its scores; finish it first")
        for mask in self._parts.masks.values():
            mask.drop_scores(index)

    def priors(self, task: str) -> tuple[str, ...]:
        """List the prior tasks that a task took over from, by ``influence`` or ``start_from``, and those they did.

        The masks of such tasks agree by construction: their overlap cannot be held against chance.

        Returns:
            Their names, from the earliest; none for a task that was trained from scores of its own.
        """
        found: set[int] = set()
        waiting = [self._index(task)]
        while waiting:
            new = self._moved.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return tuple(self._names[index] for index in sorted(found))

    # What was learned

    @property
    def masked(self) -> tuple[str, ...]:
        """Names of the masked weights, in model order."""
        return tuple(self._parts.masks)

    @property
    def unmasked(self) -> Mapping[str, str]:
        """Every other parameter -> why it is not masked; tasks share it, or start from it where they train it."""
        return dict(self._parts.unmasked)

    def bits(self, task: str, name: str) -> Bits:
        """Give a task's mask of a masked weight, packed."""
        bits = self._mask(name).bits(self._index(task))
        return Bits(bits.packed.clone(), bits.shape)

    def mask(self, task: str, name: str) -> Tensor:
        """Give a task's mask of a masked weight: boolean, of the weight's shape."""
        return self._mask(name).bits(self._index(task)).unpack()

    def start_bits(self, task: str, name: str) -> Bits:
        """Draw the mask of a task's score initialisation again, from the seed: that before any training."""
        return self._mask(name).start_bits(self._index(task), self._parts.weight(name))

    def scores(self, task: str, name: str) -> Tensor | None:
        """Copy a task's scores, without a prior task's influence; None if they were dropped."""
        # To set them, copy into the tensors of ``trainable(task)``, in the order of ``masked``.
        scores = self._mask(name).scores(self._index(task))
        return None if scores is None else scores.detach().clone()

    def weight(self, name: str) -> Tensor:
        """Give a frozen weight that is masked, whole."""
        self._mask(name)
        return self._parts.weight(name).detach().clone()

    def weights_digest(self) -> str:
        """Hash the frozen parameters, masked or not: SHA-256 of their names, shapes, types and bytes."""
        return self._parts.digest()

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of the batch norms, in model order."""
        return tuple(self._parts.norms)

    def statistics(self, task: str) -> Mapping[str, Statistics]:
        """Give a task's statistics by batch norm."""
        index = self._index(task)
        return {name: norm.statistics(index) for name, norm in self._parts.norms.items()}

    def probe(self, task: str, batches: Iterable[Any]) -> Mapping[str, Statistics]:
        """Measure what new data look like through a task's mask, normalised with the task's stored statistics.

        Args:
            task: The task's name.
            batches: As in :meth:`reestimate`; gone through once.

        Returns:
            Mean and variance of what each batch norm receives; nothing is stored.

        Raises:
            MeasurementError: If a batch norm gets fewer than two values per unit, or none that are finite.
        """
        with self.on(task), passes.evaluating(self):
            return passes.watch(self, self._parts.norms, batches)

    def norm_behind(self, inputs: Any) -> Mapping[str, str | None]:
        """Find the batch norm behind each masked weight: the first to receive its output, no masked layer between.

        Args:
            inputs: One batch, as in :meth:`reestimate`; its values do not matter, and no task needs to be selected.

        Returns:
            Masked weight -> batch norm; None for the output layer and other weights that have none behind them.
        """
        layers = {
            name: [self.model.get_submodule(layer) for layer in users] for name, users in self._parts.layers.items()
        }
        self._selection.unmasked = True
        try:
            with passes.evaluating(self):
                return passes.norms_behind(self, layers, self._parts.norms, inputs)
        finally:
            self._selection.unmasked = False

    def reestimate(self, task: str, batches: Iterable[Any]) -> None:
        """Measure a task's statistics anew with the mask it has now, exactly over all rows given.

        Running statistics are averages of the last batches, taken while the mask still moved. Here each batch norm in
        turn gets mean and variance of what it receives, those before it normalising with theirs already: one pass over
        the data each, in evaluation mode. Call it before :meth:`finish`. The result does not depend on the batch size.

        Args:
            task: The task's name.
            batches: Tensors, pairs of inputs and labels, or mappings of keyword arguments; can be gone through
                repeatedly.

        Raises:
            UsageError: If the task is finished, or the batches are none or a mere iterator.
            MeasurementError: If a batch norm gets fewer than two values per unit, or none that are finite.
        """
        self._unfinished(task)
        self._settle(task, batches)

    def _settle(self, task: str, batches: Iterable[Any]) -> None:
        norms = self._parts.norms
        held = {name: norm.tensors(self._index(task)) for name, norm in norms.items()}
        with self.on(task), passes.evaluating(self):
            passes.settle(norms, held, partial(passes.call, self), batches)

    @contextlib.contextmanager
    def switched_off(
        self, task: str, chosen: Mapping[str, Tensor], batches: Iterable[Any] | None = None
    ) -> Iterator[None]:
        """Switch bits of a finished task's mask off for a while.

        Args:
            task: Its name.
            chosen: Masked weight -> boolean, of the weight's shape: the bits to switch off. Those that are off stay so.
            batches: Rows over which the task's statistics are measured anew meanwhile, as :meth:`reestimate` does; None
                leaves them.

        Yields:
            Nothing; on leaving, also by an error, bits and statistics are bit for bit what they were.

        Raises:
            UsageError: If the task is not finished.

        Example:
            >>> net = SupermaskNetwork(nn.Sequential(nn.Linear(2, 1)))
            >>> net.add_task("a")
            >>> net.finish("a")
            >>> with net.switched_off("a", {"0.weight": torch.ones(1, 2, dtype=torch.bool)}):
            ...     int(net.mask("a", "0.weight").sum())
            0
        """
        index = self._index(task)
        if index not in self._selection.finished:
            raise UsageError(f"task {task!r} is not finished, and its bits still follow its scores; finish it first")
        held = {name: self.bits(task, name) for name in chosen}
        statistics = {name: norm.statistics(index) for name, norm in self._parts.norms.items()}
        try:
            for name, bits in held.items():
                off = Bits.of(chosen[name]).packed.to(bits.packed.device)
                self._mask(name).hold_bits(index, Bits(bits.packed & ~off, bits.shape))
            if batches is not None:
                self._settle(task, batches)
            yield
        finally:
            for name, bits in held.items():
                self._mask(name).hold_bits(index, bits)
            for name, norm in self._parts.norms.items():
                statistics[name].put(norm.tensors(index))

    # Files

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the network to a folder that is free, or with ``overwrite`` holds a network that may go.

        Written are the frozen weights once, and per task one bit per weight, statistics, and scores that were kept; not
        the selected task, nor the state of optimisers.

        Raises:
            UsageError: If something is there that may not be replaced.
            OSError: If the disk refuses.
        """
        files.write(folder, self._parts, self.state(), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, model: nn.Module) -> Self:
        """Read a network back, with all its tasks, none of them selected.

        Args:
            folder: Where :meth:`save` wrote to.
            model: A model of the same architecture, with any weights; it is copied.

        Returns:
            The network; a task gives the outputs it gave before, to the last bit.

        Raises:
            UsageError: If there is no such folder, or the model has another architecture.
            IntegrityError: If the folder is damaged.
        """
        record = files.read_record(folder)
        tensors = files.read_tensors(folder, record)
        options = dict(record["options"])
        options["rule"] = rule_of(options["rule"])
        net = cls(files.unfrozen(copied(model), record), **options)
        net._take_tasks(record)
        files.fill(net._parts, record, tensors, folder)
        return net

    def state(self) -> dict[str, Any]:
        """Describe everything beside tensors: options and tasks, in plain JSON values."""
        return {
            "options": self._options.record(),
            "tasks": [
                {
                    "name": name,
                    "finished": index in self._selection.finished,
                    "scores": any(mask.scores(index) is not None for mask in self._parts.masks.values()),
                    "moved_towards": sorted(self._moved.get(index, ())),
                    "influences": {
                        weight: {"alphas": list(influence.alphas.items()), "beta": influence.beta}
                        for weight, mask in self._parts.masks.items()
                        if (influence := mask.influence(index)) is not None
                    },
                }
                for index, name in enumerate(self._names)
            ],
        }

    def _take_tasks(self, state: dict[str, Any]) -> None:
        """Make room for saved tasks; what their tensors hold until they are loaded means nothing."""
        saved, masks = files.read_tasks(state, self._parts.masks), self._parts.masks
        here, there = [task.point for task in files.read_tasks(self.state(), masks)], [task.point for task in saved]
        if here and here != there:
            raise UsageError(
                f"the network has the tasks {here} (name, finished, has scores), the saved one {there}: load into a "
                "network that was just made, or one whose tasks are at the same point"
            )
        for index, task in enumerate(saved):
            if task.name not in self._names:
                self.add_task(task.name)
                for weight, mask in masks.items():
                    if task.finished:
                        mask.hold_bits(index, mask.start_bits(index, self._parts.weight(weight)))
                    if not task.scores:
                        mask.drop_scores(index)
            self._moved[index] = set(task.moved_towards)
            if task.finished:
                self._selection.finished.add(index)
            for weight, mask in masks.items():
                mask.set_influence(index, task.influences.get(weight))

    def get_extra_state(self) -> Tensor:
        """Give what ``state_dict`` holds beside tensors of the network: options and tasks, JSON as bytes."""
        return torch.frombuffer(bytearray(json.dumps(self.state()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the tasks of a ``state_dict``, before their tensors are loaded.

        Raises:
            UsageError: If it is of a network with other options or other tasks.
        """
        record = json.loads(state.cpu().numpy().tobytes())
        for option in ("rule", "scores", "batch_norm", "seed", "weights_seed"):
            here, there = self.state()["options"][option], record["options"][option]
            if here != there:
                raise UsageError(
                    f"{option} of this network is {here!r}, of the state {there!r}: expected the same; make the "
                    "network with the options of the state"
                )
        self._take_tasks(record)

    # Transfer

    def influence(self, alphas: Mapping[str, Mapping[str, float]], beta: float) -> None:
        """Let prior tasks take part in the training of the selected one.

        Its masks come from ``(1 - beta) s + beta sg(rms(s)) u``, with u the alpha-weighted sum of the prior tasks'
        scores, each over its root mean square, rescaled to 1 (``2m - 1`` in place of scores that were dropped). With
        beta 0, and in weights without alphas, everything is as without influence, to the last bit. Replaces an
        influence that is on.

        Args:
            alphas: Masked weight -> prior task -> alpha of at least 0; only ratios count.
            beta: Strength, from 0 to below 1.

        Raises:
            UsageError: If no task is selected or it is finished; a name is unknown; a prior task was added later or is
                not finished; or a number is out of range.
        """
        if beta == 1:
            raise UsageError("beta 1 leaves the task nothing to train: expected below 1; start_from takes 1")
        index, influences, towards = self._read(alphas, beta)
        for name, mask in self._parts.masks.items():
            mask.set_influence(index, influences.get(name), towards.get(name))

    def consolidate(self) -> None:
        """Make the mixture the selected task's own scores and end the influence; its masks stay the same."""
        index = self._unfinished(self._names[self._selection.current()])
        for mask in self._parts.masks.values():
            mask.consolidate(index)

    def start_from(self, alphas: Mapping[str, Mapping[str, float]], beta: float) -> None:
        """Move the selected task's scores once, to the mixture of :meth:`influence`; beta may be 1."""
        index, influences, towards = self._read(alphas, beta)
        for name, influence in influences.items():
            self._mask(name).move(index, towards[name], influence.beta)

    @contextlib.contextmanager
    def superposed(self, weights: Mapping[str, Tensor], *, mixture_counts: float | None = None) -> Iterator[None]:
        """Call the network with a mixture of tasks, weights times ``sum_i a_i m_i``, until a task is selected.

        Batch norms use the mixture's statistics: mean ``mu = sum_i a_i mu_i``, variance ``v = sum_i a_i (v_i + mu_i^2)
        - mu^2``. Weights of 1 and 0 give the one task, to the last bit. With ``mixture_counts`` k they use the
        statistics of the inputs themselves, in which the mixture counts as k values: of n values with mean x and
        variance s, mean ``(n x + k mu) / (n + k)`` and variance ``((n - 1) s + k v) / (n - 1 + k)``. Gradients go into
        the ``a_i`` in both cases. Evaluation mode only.

        Args:
            weights: Task -> ``a_i``, a floating-point scalar tensor.
            mixture_counts: How many values the mixture counts as, over 0; None for the mixture alone.

        Yields:
            Nothing.

        Raises:
            UsageError: If a task is unknown, there is none, or a number is not as said. The call of the network raises
                MeasurementError where weights that do not sum to 1 make a variance negative.
        """
        check_mixture(weights, mixture_counts)
        indices = tuple(self._index(task) for task in weights)
        device = self._parts.weight(self.masked[0]).device
        former = self._selection.mixture
        self._selection.mixture = Mixture(indices, torch.stack(list(weights.values())).to(device), mixture_counts)
        try:
            yield
        finally:
            self._selection.mixture = former

    # Inside

    def _index(self, task: str) -> int:
        if task not in self._names:
            raise UsageError(f"there is no task {task!r}: expected one of {self._names}; add it with add_task")
        return self._names.index(task)

    def _unfinished(self, task: str) -> int:
        index = self._index(task)
        if index in self._selection.finished:
            raise UsageError(f"task {task!r} is finished, and a finished task never changes again; add another task")
        return index

    def _mask(self, name: str) -> MaskedWeight:
        if name not in self._parts.masks:
            raise UsageError(f"{name!r} is not a masked weight: expected one of {list(self._parts.masks)}")
        return self._parts.masks[name]

    def _trained(self, index: int) -> list[nn.Parameter]:
        scores = (mask.scores(index) for mask in self._parts.masks.values())
        affine = (parameter for norm in self._parts.norms.values() for parameter in norm.trained(index))
        return [*(parameter for parameter in scores if parameter is not None), *affine]

    def _trained_beside(self, index: int | None) -> list[nn.Parameter]:
        others = set(range(len(self._names))) - self._selection.finished - {index}
        return [parameter for other in sorted(others) for parameter in self._trained(other)]

    def _select(self, index: int | None) -> None:
        former = self._selection.task
        if former is not None and former != index:
            for parameter in self._trained(former):
                parameter.requires_grad_(False)
        self._selection.task, self._selection.mixture = index, None
        if index is not None and index not in self._selection.finished:
            for parameter in self._trained(index):
                parameter.requires_grad_(True)
                self._selection.watch(parameter, index)

    def _read(
        self, alphas: Mapping[str, Mapping[str, float]], beta: float
    ) -> tuple[int, dict[str, Influence], dict[str, Tensor]]:
        """Read what moves the selected task, and in which direction, and note the prior tasks."""
        index = self._unfinished(self._names[self._selection.current()])
        finished, masks = self._selection.finished, self._parts.masks
        influences = read_alphas(alphas, beta, task=index, tasks=self._names, finished=finished, masked=masks)
        towards = {name: masks[name].towards(influence) for name, influence in influences.items()}
        if priors := {prior for influence in influences.values() for prior in influence.alphas}:
            self._moved.setdefault(index, set()).update(priors)
        return index, influences, towards

    def extra_repr(self) -> str:
        """Describe the network."""
        tasks = ", ".join(f"{name} (finished)" if self.is_finished(name) else name for name in self._names)
        return f"{self._options.rule}, seed={self._options.seed}, tasks=[{tasks}], task={self.task}"
