"""Training samples from sources of photographs."""
