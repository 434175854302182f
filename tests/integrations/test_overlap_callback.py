"""The callback in a real Trainer: what it logs equals what the library measures, and training is what it was."""

from __future__ import annotations

import math

import pytest
import torch
from integrations.tiny_trainer import some_rows, tiny_model, trainer_of
from transformers import TrainerCallback

import commonweight
from commonweight.base import NotComparableError, UsageError
from commonweight.integrations import OverlapCallback

KEYS = {
    "fisher_overlap",
    "fisher_overlap_layer_mean",
    "weight_cosine",
    "weight_change",
    "overlap_seconds",
    "epoch",
    "step",
}


def batches_of(trainer):
    rows = some_rows()
    return [trainer.data_collator(rows[:8]), trainer.data_collator(rows[8:])]


def logged(trainer):
    return [entry for entry in trainer.state.log_history if "fisher_overlap" in entry]


def vector(weights):
    return torch.cat([weight.detach().double().reshape(-1) for weight in weights])


def cosine(x, y):
    return float(x @ y / (x.norm() * y.norm()))


def test_it_logs_what_the_library_measures(tmp_path):
    model, start, other = tiny_model(), tiny_model(), tiny_model(1)
    trainer = trainer_of(model, tmp_path, logging_steps=1)
    batches = batches_of(trainer)
    trainer.add_callback(OverlapCallback(trainer, batches, every=2, other=other))
    trainer.train()
    first, middle, last = logged(trainer)
    assert [entry["step"] for entry in (first, middle, last)] == [0, 2, 4]
    assert set(middle) == set(last) == {*KEYS, "change_cosine"}
    assert set(first) == KEYS  # nothing has changed: no cosine
    assert first["fisher_overlap"] == first["weight_cosine"] == 1
    assert first["weight_change"] == 0

    table = commonweight.overlap({"a": commonweight.fisher(start, batches), "b": commonweight.fisher(model, batches)})
    assert last["fisher_overlap"] == pytest.approx(table.pooled[0, 1])
    assert last["fisher_overlap_layer_mean"] == pytest.approx(table.layer_mean[0, 1])
    assert 0 < last["fisher_overlap"] < middle["fisher_overlap"] < 1
    then, now, there = (vector(each.parameters()) for each in (start, model, other))
    assert last["weight_cosine"] == pytest.approx(cosine(now, then))
    assert last["weight_change"] == pytest.approx(float((now - then).norm() / then.norm()))
    assert last["change_cosine"] == pytest.approx(cosine(now - then, there - then))
    assert all(entry["overlap_seconds"] > 0 for entry in (first, middle, last))


class Watching(TrainerCallback):
    """Keeps modes, gradients and random numbers before and after a step's callbacks, and what trackers get."""

    def __init__(self):
        self.seen, self.tracked = [], []

    def on_step_end(self, args, state, control, *, model, **_):
        gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        self.seen.append((model.training, gradients, torch.get_rng_state().clone(), control.should_log))

    def on_log(self, args, state, control, *, logs, **_):
        self.tracked.append(set(logs))


def test_training_is_the_same_to_the_last_bit_and_the_loss_is_still_logged(tmp_path):
    found = []
    for with_callback in (False, True):
        trainer = trainer_of(tiny_model(), tmp_path, logging_steps=2)
        before, after = Watching(), type("After", (Watching,), {})()
        trainer.add_callback(before)
        if with_callback:
            trainer.add_callback(OverlapCallback(trainer, batches_of(trainer), every=1))
        trainer.add_callback(after)
        trainer.train()
        losses = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
        found.append((list(trainer.model.parameters()), losses))
        for ahead, behind in zip(before.seen, after.seen, strict=True):
            assert ahead[0]
            assert behind[0]
            assert all(a is b or torch.equal(a, b) for a, b in zip(ahead[1], behind[1], strict=True))
            assert torch.equal(ahead[2], behind[2])
            assert ahead[3] == behind[3]
    assert any("fisher_overlap" in keys for keys in before.tracked)
    (plain, losses), (watched, watched_losses) = found
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert losses == watched_losses
    assert [step for step, _ in losses] == [2, 4]


def test_it_can_follow_evaluations_and_checkpoints(tmp_path):
    for every, options in (
        ("evaluate", {"eval_strategy": "steps", "eval_steps": 2}),
        ("save", {"save_strategy": "steps", "save_steps": 2}),
    ):
        trainer = trainer_of(tiny_model(), tmp_path, **options)
        trainer.add_callback(OverlapCallback(trainer, batches_of(trainer), every=every))
        trainer.evaluate()
        assert logged(trainer) == []
        trainer.train()
        assert [entry["step"] for entry in logged(trainer)] == [0, 2, 4]
        trainer.evaluate()
        assert len(logged(trainer)) == 3


def test_with_a_reference_the_first_point_is_its_overlap(tmp_path):
    trainer = trainer_of(tiny_model(), tmp_path)
    batches = batches_of(trainer)
    reference = commonweight.fisher(tiny_model(1), batches, fisher_type="exact")
    options = {"fisher_type": "exact"}
    trainer.add_callback(OverlapCallback(trainer, batches, every=4, reference=reference, **options))
    expected = commonweight.fisher_overlap(reference, commonweight.fisher(trainer.model, batches, **options))
    trainer.train()
    assert logged(trainer)[0]["fisher_overlap"] == pytest.approx(expected)
    assert 0 < expected < 1


def test_frozen_weights_are_left_out(tmp_path):
    model = tiny_model()
    model.bert.requires_grad_(False)
    before = vector(model.classifier.parameters())
    trainer = trainer_of(model, tmp_path)
    trainer.add_callback(OverlapCallback(trainer, batches_of(trainer), every=4))
    trainer.train()
    after = vector(model.classifier.parameters())
    assert logged(trainer)[-1]["weight_change"] == pytest.approx(float((after - before).norm() / before.norm()))


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    trainer = trainer_of(tiny_model(), tmp_path)
    batches = batches_of(trainer)
    with pytest.raises(UsageError, match="every must be a number of steps of at least 1, 'evaluate' or 'save', got 0"):
        OverlapCallback(trainer, batches, every=0)
    with pytest.raises(UsageError, match="a generator can be only once; give a list or a DataLoader"):
        OverlapCallback(trainer, (batch for batch in batches))
    with pytest.raises(UsageError, match="reference must be a Footprint, got dict"):
        OverlapCallback(trainer, batches, reference={})
    mask = commonweight.Footprint("supermask", {"w": torch.ones(2)}, 1)
    with pytest.raises(UsageError, match="reference must be a footprint of kind fisher, got supermask"):
        OverlapCallback(trainer, batches, reference=mask)
    trainer.add_callback(OverlapCallback(trainer, batches, other={"classifier.weight": torch.ones(3)}))
    with pytest.raises(NotComparableError, match=r"does not have the weights that are trained, \d+ differences"):
        trainer.train()
    trainer = trainer_of(tiny_model(), tmp_path)
    reference = commonweight.fisher(tiny_model(), batches, fisher_type="exact")
    trainer.add_callback(OverlapCallback(trainer, batches, reference=reference))
    with pytest.raises(NotComparableError, match="exact"):
        trainer.train()
    monkeypatch.setattr("commonweight.integrations.trainer.is_sharded", lambda _: True)
    with pytest.raises(UsageError, match="the model is sharded by fully_shard, and OverlapCallback compares weights"):
        trainer.train()
    assert not math.isnan(float(vector(trainer.model.parameters()).sum()))
