"""The losses that networks are fitted to."""
