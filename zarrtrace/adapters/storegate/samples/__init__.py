"""Data sets beside the draws: arrays of samples for training, validation and test."""

from .array import PHASES, split_samples
from .data_set import DataSet, Phase, Samples, list_data_sets

__all__ = ["PHASES", "DataSet", "Phase", "Samples", "list_data_sets", "split_samples"]
