"""Networks: where a model comes from, and what is recorded about it."""

from commonweight.models.load import load_model
from commonweight.models.options import LoadedModel, LoadOptions

__all__ = ["LoadOptions", "LoadedModel", "load_model"]
