"""Inference: trained networks applied to arrays and photos."""
