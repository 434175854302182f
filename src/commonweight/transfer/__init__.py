"""What a new task takes from earlier ones: alphas, prior rules, the EWC penalty."""

from commonweight.transfer.alphas import Alphas, alphas_for, transfer_alphas
from commonweight.transfer.ewc import ewc_penalty

__all__ = ["Alphas", "alphas_for", "ewc_penalty", "transfer_alphas"]
