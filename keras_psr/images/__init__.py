"""Pictures as NumPy arrays and as files; nothing here knows of networks."""
