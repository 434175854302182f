"""The first notebook's functions, written down again with inputs, outputs and mistakes. Nothing of the package."""

import numpy as np
import torch
from sklearn.metrics.pairwise import cosine_similarity


def jaccard_index(supermask1, supermask2):
    """0 for two empty masks."""
    both = np.sum(np.logical_and(supermask1, supermask2))
    either = np.sum(np.logical_or(supermask1, supermask2))
    return both / either if either != 0 else 0


def calculate_task_similarityE1(bn_means, num_tasks):  # noqa: N802
    """Absolute cosine of the means with key 1; 0 where a task has none."""
    found = np.zeros((num_tasks, num_tasks))
    for task in range(num_tasks):
        if bn_means[task] is None or 1 not in bn_means[task]:
            continue
        for other, means in enumerate(bn_means.values()):
            if means is not None and 1 in means:
                found[task, other] = _similarity(bn_means[task][1], means[1])
    return found


def calculate_task_similarityE2(bn_means, num_tasks):  # noqa: N802
    """The same for every key of task 0."""
    layers = {}
    if bn_means[0] is not None:
        for layer in bn_means[0]:
            found = np.zeros((num_tasks, num_tasks))
            for task in range(num_tasks):
                if bn_means[task] is not None:
                    for other, means in enumerate(bn_means.values()):
                        if means is not None and means[layer] is not None:
                            found[task, other] = _similarity(bn_means[task][layer], means[layer])
            layers[layer] = found
    return layers


def determine_alphas(similarities, current_task):
    """1 for the largest entry of the task's whole row: the diagonal is 1, so this is the task itself."""
    alphas = {}
    for layer, similarity in similarities.items():
        row = similarity[current_task]
        chosen = np.zeros_like(row)
        chosen[np.argmax(row)] = 1
        alphas[layer] = torch.tensor(chosen, dtype=torch.float)
    return alphas


def _similarity(one, other):
    return abs(cosine_similarity(one.cpu().numpy().reshape(1, -1), other.cpu().numpy().reshape(1, -1))[0][0])
