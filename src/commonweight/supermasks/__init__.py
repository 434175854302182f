"""Supermasks: many tasks in one frozen network, each with a mask and batch-norm statistics of its own."""

from commonweight.supermasks.bits import Bits
from commonweight.supermasks.inference import EachInference, Inference, Prediction, infer_each, predict
from commonweight.supermasks.norm import Statistics
from commonweight.supermasks.rules import MaskRule, Threshold, TopK

__all__ = [
    "Bits",
    "EachInference",
    "Inference",
    "MaskRule",
    "Prediction",
    "Statistics",
    "Threshold",
    "TopK",
    "infer_each",
    "predict",
]
