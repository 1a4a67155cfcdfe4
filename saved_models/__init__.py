"""The shipped models: one folder each, with `model.keras`, `.tflite` files and `card.json`."""
