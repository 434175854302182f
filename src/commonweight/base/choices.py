"""Words to choose from that rooms and the command line share. Light, so that a command's help can name them."""

from __future__ import annotations

from typing import Literal, get_args

FisherType = Literal["empirical", "exact", "mc"]
"""Whose labels the expectation is over: the given ones, all that the model may give, or draws from these."""

FISHER_TYPES: tuple[FisherType, ...] = get_args(FisherType)

Method = Literal["one_shot", "binary", "lowest_entropy", "nearest_statistics"]
"""The ways to infer a task."""

METHODS: tuple[Method, ...] = get_args(Method)

ScenarioName = Literal["permuted", "rotated", "partitioned", "patch"]
"""What sets the tasks of a stream apart."""

Order = Literal["given", "shuffled"]
"""Whether tasks come in the stated order, or in one drawn from the seed."""

Normalise = Literal["unit", "standard"]
"""What pixels become: from 0 to 1, or with mean 0 and standard deviation 1."""

PriorRule = Literal["most_similar", "softmax", "least_similar", "random", "previous", "mean", "oracle"]
"""How the prior tasks that influence a new one are chosen."""

SimilarityName = Literal["first_layer", "every_layer", "probed"]
"""How the similarity of tasks is measured."""

Structure = Literal["head", "qkv", "neuron", "expert"]
"""Parts of a layer that a table can list."""

STRUCTURES: tuple[Structure, ...] = get_args(Structure)
