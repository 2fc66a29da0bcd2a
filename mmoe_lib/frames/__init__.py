"""Multi-task models on a user's own pandas frame: columns to numbers, training, predictions, files."""

from mmoe_lib.frames.encoder import Category, FrameEncoder, Number
from mmoe_lib.frames.model import MODELS, FitSettings, MultiTaskModel
from mmoe_lib.frames.targets import Target

__all__ = [
    "MODELS",
    "Category",
    "FitSettings",
    "FrameEncoder",
    "MultiTaskModel",
    "Number",
    "Target",
]
