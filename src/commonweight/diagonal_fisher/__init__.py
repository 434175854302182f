"""The diagonal Fisher, exact per example: what a user adds to it, and what it reports."""

from commonweight.diagonal_fisher.contribution import Contribution, Dense, Kernel, Product, Sparse
from commonweight.diagonal_fisher.likelihood import CustomLoss
from commonweight.diagonal_fisher.replay import RefusedError
from commonweight.diagonal_fisher.rules import RULES, Rule, by_example
from commonweight.diagonal_fisher.verification import Route, Verification

__all__ = [
    "RULES",
    "Contribution",
    "CustomLoss",
    "Dense",
    "Kernel",
    "Product",
    "RefusedError",
    "Route",
    "Rule",
    "Sparse",
    "Verification",
    "by_example",
]
