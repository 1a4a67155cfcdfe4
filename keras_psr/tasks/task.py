"""The `Task` protocol: everything in which super-resolution and style transfer differ."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from keras_psr.data.sources import OnPicture
from keras_psr.tasks.config import FitConfig

if TYPE_CHECKING:
    import keras

    from keras_psr.data.samples import SampleStream
    from keras_psr.inference.upscaler import Upscaler
    from keras_psr.losses.perceptual import PerceptualLoss

Scores = dict[str, float]
"""Scores by name of the metric."""

Config = TypeVar("Config", bound=FitConfig, contravariant=True)


class Task(Protocol[Config]):
    """The functions that a task consists of. Each task is a module, such as `tasks/super_resolution/task.py`.

    Two parts do not need Keras and are found elsewhere by the task's name (`constants.SUPER_RESOLUTION`): the settings
    in `config.py`, and the way the scores are shown in `report.py`. `registry.TASKS` lists all tasks.
    """

    def build_network(self, config: Config, dtype: str) -> "keras.Model":
        """Returns the network with random weights. `dtype` is the Keras dtype or policy of its hidden layers."""

    def build_loss(self, config: Config) -> "PerceptualLoss":
        """Returns the weighted loss terms of a fit."""

    def build_stream(self, config: Config) -> "SampleStream":
        """Returns the samples that the network is fitted to."""

    def build_validation(self, config: Config) -> "Validation":
        """Returns an object that scores the network during a fit."""

    def build_verification(self, scale: int, max_drop: float) -> "Verification":
        """Returns an object that compares `.tflite` files with their network.

        Args:
            scale: Upscaling factor of the network.
            max_drop: Largest accepted loss of PSNR, in dB, if the task has originals to compare with.
        """

    def evaluate(
        self,
        upscaler: "Upscaler",
        data: Sequence[str],
        *,
        settings: Mapping[str, Any],
        degradation: str | None,
        style: str | None,
        iterations: int | None,
        on_picture: OnPicture,
    ) -> dict[str, Any]:
        """Scores a network.

        Args:
            upscaler: The network.
            data: Sources of pictures that it was not fitted to (`sources.open_sources`).
            settings: The settings of its fit; empty if they are unknown.
            degradation: How low-resolution pictures are made, for super-resolution only; None for `bicubic`.
            style: The painting, for styles only; None for the one in the settings.
            iterations: Iterations of the optimisation to compare with, for styles only; None for no comparison.
            on_picture: Called before each picture.

        Returns:
            A dictionary for JSON: the scores of each picture in `pictures`, the scores of the set by method in
            `summary`, and the pictures that were left out in `skipped`.

        Raises:
            ConfigError: An argument does not apply to the task.
            DataError: No picture can be used.
        """


class Validation(Protocol):
    """Scores a network during a fit, on held-out pictures.

    Attributes:
        best: Name of the score whose highest value so far is logged too; None for none.
    """

    best: str | None

    def __call__(self, network: "keras.Model") -> tuple[Scores, np.ndarray]:
        """Returns scores by name, each beginning with `val_`, and a sheet of pictures, uint8 RGB."""


class Verification(Protocol):
    """Compares `.tflite` files with their network.

    Attributes:
        limit: The limits that a file must keep, by name, for the report.
    """

    limit: dict[str, float]

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the network's input and the original, both uint8 RGB, for a picture."""

    def score(self, image: np.ndarray, expected: np.ndarray, original: np.ndarray) -> Scores:
        """Returns the scores of a result, given the network's result and the original, all uint8 RGB of one shape.

        Raises:
            ConfigError: The picture is too small.
        """

    def compare(self, scores: Scores, expected: Scores) -> Scores:
        """Returns the entries of a file in the report, given the mean scores of its results and of the network's."""

    def accepts(self, row: Mapping[str, Any]) -> bool:
        """Returns whether a file is good enough, given its row of the report."""
