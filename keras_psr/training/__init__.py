"""Fitting networks: the gradient step, its optimizer and devices, callbacks and the run folder."""
