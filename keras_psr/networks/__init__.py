"""The networks, as functional Keras models, and how far they look."""
