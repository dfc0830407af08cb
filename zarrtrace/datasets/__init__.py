"""Data sets beside the draws: arrays of samples for training, validation and test."""

from .data_set import DataSet, Phase, Samples, list_data_sets
from .samples import PHASES, split_samples

__all__ = ["PHASES", "DataSet", "Phase", "Samples", "list_data_sets", "split_samples"]
