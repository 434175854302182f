"""The diagonal Fisher by its definition: one example at a time, ordinary autograd. Imports nothing of the package."""

import torch


def loop_fisher(model, examples, nll, weights=None):
    """Mean over examples of the squared gradient of ``nll(model, example)`` (a scalar, or a list of weighted passes).

    ``examples`` is a list of batches of one example; ``nll`` gives a list of scalars whose squared gradients are added.
    """
    model.eval()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    traces = []
    for example in examples:
        trace = 0.0
        for scalar in nll(model, example):
            for p in parameters.values():
                p.grad = None
            if scalar.requires_grad:
                scalar.backward(retain_graph=True)
            for name, p in parameters.items():
                if p.grad is not None:
                    gradient = p.grad.to_dense() if p.grad.is_sparse else p.grad
                    total[name] += gradient.double() ** 2
                    trace += float((gradient.double() ** 2).sum())
        traces.append(trace)
    for p in parameters.values():
        p.grad = None
    return {name: value / len(examples) for name, value in total.items()}, traces
