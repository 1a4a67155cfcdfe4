"""Pictures as NumPy arrays and as files, independent of networks."""
