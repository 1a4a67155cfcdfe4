"""Fitting: settings, the custom `train_step`, callbacks and the run folder. Empty, so that `config` stays light."""
