"""Exports fitted networks to files for other runtimes, with post-training quantization."""
