"""The mixin on a real Trainer: its loss and its gradients are those of the formula, by hand."""

from __future__ import annotations

import pytest
import torch
from integrations.tiny_trainer import some_rows, tiny_model, trainer_of
from transformers import Trainer, TrainerCallback

import commonweight
from commonweight.base import NotComparableError, UsageError
from commonweight.integrations import EarlierTask, EWCTrainerMixin

STRENGTH = 50.0


class EWCTrainer(EWCTrainerMixin, Trainer):
    pass


def earlier_task(trainer, strength=STRENGTH, shift=0.1):
    """A Fisher of the model, and an anchor that its weights are away from."""
    batch = trainer.data_collator(some_rows()[:8])
    footprint = commonweight.fisher(trainer.model, [batch], fisher_type="exact")
    anchor = {name: weight.detach() + shift for name, weight in trainer.model.named_parameters()}
    return EarlierTask(footprint, anchor, strength)


def by_hand(model, tasks):
    """``lambda / 2 Σ F (θ - θ*)²``, weight by weight."""
    parameters = dict(model.named_parameters())
    return sum(
        task.strength / 2 * float((task.footprint[name] * (parameters[name].detach() - task.anchor[name]) ** 2).sum())
        for task in tasks
        for name in task.footprint
    )


def without_dropout(seed=0):
    model = tiny_model(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def test_the_training_loss_has_the_penalty_and_the_evaluation_loss_has_not(tmp_path):
    plain = trainer_of(without_dropout(), tmp_path)
    tasks = [earlier_task(plain), earlier_task(plain, strength=7.0, shift=-0.2)]
    trainer = trainer_of(without_dropout(), tmp_path, kind=EWCTrainer, more={"earlier": tasks})
    batch = plain.data_collator(some_rows()[:4])
    plain.model.train()
    trainer.model.train()
    ordinary, charged = (each.compute_loss(each.model, dict(batch)) for each in (plain, trainer))
    expected = by_hand(trainer.model, tasks)
    assert expected > 0.01
    assert charged.item() == pytest.approx(ordinary.item() + expected, rel=1e-5)
    loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    assert loss.item() == pytest.approx(charged.item())
    assert outputs.logits.shape == (4, 2)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"])


class Gradients(TrainerCallback):
    def __init__(self):
        self.found = []

    def on_pre_optimizer_step(self, args, state, control, *, model, **_):
        self.found.append({name: weight.grad.clone() for name, weight in model.named_parameters()})


@pytest.mark.parametrize("accepts", [False, True])
@pytest.mark.parametrize("accumulated", [1, 4])
def test_a_step_has_the_gradient_of_one_penalty_however_many_batches_it_takes(tmp_path, accumulated, accepts):
    found = []
    probe = trainer_of(without_dropout(), tmp_path)
    task = earlier_task(probe)
    for kind, more in ((Trainer, {}), (EWCTrainer, {"earlier": [task]})):
        trainer = trainer_of(
            without_dropout(),
            tmp_path,
            kind=kind,
            more=more,
            max_steps=1,
            max_grad_norm=0.0,
            per_device_train_batch_size=16 // accumulated,
            gradient_accumulation_steps=accumulated,
        )
        trainer.model_accepts_loss_kwargs = accepts
        watched = Gradients()
        trainer.add_callback(watched)
        trainer.train()
        (gradients,) = watched.found
        found.append((gradients, trainer.state.log_history[-1]["train_loss"]))
    (ordinary, loss), (charged, charged_loss) = found
    start = dict(without_dropout().named_parameters())
    for name, values in task.footprint.items():
        own = STRENGTH * values * (start[name].detach() - task.anchor[name])
        assert torch.allclose(charged[name] - ordinary[name], own, rtol=1e-3, atol=1e-5), name
    assert charged_loss - loss == pytest.approx(by_hand(without_dropout(), [task]), rel=1e-4)


def test_it_holds_the_weights_in_place(tmp_path):
    moved = []
    for strength in (0.0, 1e4):
        trainer = trainer_of(without_dropout(), tmp_path)
        task = earlier_task(trainer, strength=strength, shift=0.0)
        trainer = trainer_of(without_dropout(), tmp_path, kind=EWCTrainer, more={"earlier": [task]}, max_steps=20)
        trainer.train()
        moved.append(by_hand(trainer.model, [EarlierTask(task.footprint, task.anchor)]))
    free, held = moved
    assert held < free / 3


def test_stored_footprints_are_read_once(tmp_path):
    trainer = trainer_of(without_dropout(), tmp_path / "run")
    task = earlier_task(trainer)
    task.footprint.save(tmp_path / "fisher")
    stored = EarlierTask(commonweight.Footprint.load(tmp_path / "fisher"), task.anchor, STRENGTH)
    trainer = trainer_of(without_dropout(), tmp_path / "run", kind=EWCTrainer, more={"earlier": [stored]})
    trainer.train()
    assert isinstance(trainer._held[0].footprint.tensors, dict)


def test_what_does_not_fit_is_refused_before_training(tmp_path):
    trainer = trainer_of(tiny_model(), tmp_path)
    task = earlier_task(trainer)

    def with_earlier(earlier):
        return trainer_of(tiny_model(), tmp_path, kind=EWCTrainer, more={"earlier": earlier})

    with pytest.raises(UsageError, match="earlier must be a list of EarlierTask, got a single one"):
        with_earlier(task)
    with pytest.raises(UsageError, match="each of earlier must be a EarlierTask, got Footprint"):
        with_earlier([task.footprint])
    with pytest.raises(UsageError, match="strength must be a number of at least 0, got -1"):
        with_earlier([EarlierTask(task.footprint, task.anchor, -1)])
    with pytest.raises(NotComparableError, match="not in the anchor"):
        with_earlier([EarlierTask(task.footprint, {}, 1)])
