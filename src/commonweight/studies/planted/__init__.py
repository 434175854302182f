"""Planted locations: knowledge is trained into known weights, and maps of the weights are scored against them."""

from commonweight.studies.planted.benchmark import PlantedScore, score_map, score_maps, table_of
from commonweight.studies.planted.maps import MAPS
from commonweight.studies.planted.models import Planted, PlantedPlan

__all__ = ["MAPS", "Planted", "PlantedPlan", "PlantedScore", "score_map", "score_maps", "table_of"]
