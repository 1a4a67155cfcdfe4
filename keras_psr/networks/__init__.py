"""The networks, as functional Keras models, and their receptive fields."""
