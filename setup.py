"""Maps the folders cli, export and saved_models below keras_psr; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

MAPPED = {"keras_psr.cli": "cli", "keras_psr.export": "export", "keras_psr.saved_models": "saved_models"}

setup(
    packages=find_packages(include=["keras_psr", "keras_psr.*"]) + list(MAPPED),
    package_dir=MAPPED,
)
