"""What a new task takes from earlier ones: alphas, prior rules, the EWC penalty."""

from commonweight.transfer.alphas import Alphas, alphas_for

__all__ = ["Alphas", "alphas_for"]
