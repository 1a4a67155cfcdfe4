"""Fitting: settings, the custom `train_step`, callbacks and the run folder."""

from keras_psr.training.config import FitConfig
from keras_psr.training.fit import fit

__all__ = ["FitConfig", "fit"]
