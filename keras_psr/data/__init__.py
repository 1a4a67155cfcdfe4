"""Training samples from sources of pictures."""
