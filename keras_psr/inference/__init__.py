"""Inference: fitted networks applied to arrays and photos."""
