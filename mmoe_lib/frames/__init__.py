"""Multi-task models on a user's own pandas frame: columns to numbers, training, predictions, files.

A chain of tasks, such as a purchase that can only follow a click, needs no more than missing labels: bought is missing
where there was no click, so that it is learned given a click. The product of the two is the probability of click and
purchase, for every row, also one whose click is not known yet: the decomposition of ESMM (Ma et al., SIGIR 2018, doi
10.1145/3209978.3210104, equation 1), which trains the second task through the product instead, as the example of
`mmoe_lib.training.losses` does.

>>> import numpy as np, pandas as pd
>>> from mmoe_lib.frames import FitSettings, MultiTaskModel
>>> rng = np.random.default_rng(0)
>>> log = pd.DataFrame({"match": rng.normal(size=3000), "price": rng.normal(size=3000)})
>>> log["click"] = log["match"] + rng.normal(size=3000) > 0
>>> bought = log["price"] + rng.normal(size=3000) < 0
>>> log["bought"] = bought.astype("boolean").where(log["click"])  # missing without a click
>>> model = MultiTaskModel.fit(log[:2000], ["click", "bought"], settings=FitSettings(epochs=8), progress=False)
>>> given = model.predict(log[2000:])
>>> both = given["click"] * given["bought"]
>>> bool(abs(both.mean() - (log["click"] & bought)[2000:].mean()) < 0.04)
True

"""

from mmoe_lib.frames.advice import compare
from mmoe_lib.frames.encoder import Category, Embedding, FrameEncoder, Ids, Number
from mmoe_lib.frames.model import BALANCERS, MODELS, FitSettings, MultiTaskModel
from mmoe_lib.frames.report import Advice
from mmoe_lib.frames.targets import Target

__all__ = [
    "BALANCERS",
    "MODELS",
    "Advice",
    "Category",
    "Embedding",
    "FitSettings",
    "FrameEncoder",
    "Ids",
    "MultiTaskModel",
    "Number",
    "Target",
    "compare",
]
