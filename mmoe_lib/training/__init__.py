"""Many runs of one model as one computation: the ensemble, optimisers, losses, minibatches and the loop."""

from mmoe_lib.training.batches import epochs
from mmoe_lib.training.devices import faster_device
from mmoe_lib.training.ensemble import Ensemble
from mmoe_lib.training.fit import fit
from mmoe_lib.training.history import DivergedError, History
from mmoe_lib.training.loop import TrainingSettings, train
from mmoe_lib.training.losses import binary_cross_entropy, squared_error
from mmoe_lib.training.optimisers import SGD, Adam, cosine

__all__ = [
    "SGD",
    "Adam",
    "DivergedError",
    "Ensemble",
    "History",
    "TrainingSettings",
    "binary_cross_entropy",
    "cosine",
    "epochs",
    "faster_device",
    "fit",
    "squared_error",
    "train",
]
