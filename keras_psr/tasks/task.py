"""What a task is: everything in which super-resolution and style transfer differ."""

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
"""Numbers by name of the metric."""

Config = TypeVar("Config", bound=FitConfig, contravariant=True)


class Task(Protocol[Config]):
    """Everything that a task consists of. Each is a module, such as `tasks/super_resolution/task.py`.

    What of it works without Keras stands elsewhere, by the task's name (`constants.SUPER_RESOLUTION`): its settings in
    `config.py`, and how its numbers are shown in `report.py`. `registry.TASKS` lists all.
    """

    def build_network(self, config: Config, dtype: str) -> "keras.Model":
        """Returns the untrained network, whose hidden layers have a Keras dtype or dtype policy."""

    def build_loss(self, config: Config) -> "PerceptualLoss":
        """Returns the weighted loss terms of a fit."""

    def build_stream(self, config: Config) -> "SampleStream":
        """Returns the samples to fit to."""

    def build_validation(self, config: Config) -> "Validation":
        """Returns what scores the network during a fit."""

    def build_verification(self, scale: int, max_drop: float) -> "Verification":
        """Returns what compares `.tflite` files with their network.

        Args:
            scale: Upscaling factor of the network.
            max_drop: Most that a file may lose, in dB of PSNR, if the task has originals to compare with.
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
            settings: What it was fitted with; empty if nobody wrote that down.
            degradation: How low-resolution pictures are made, for super-resolution only; None for `bicubic`.
            style: The painting, for styles only; None for that of the settings.
            iterations: Of the optimisation to compare with, for styles only; None for no such comparison.
            on_picture: Called before each picture.

        Returns:
            JSON-ready: the scores of each picture in `pictures`, those of the set by method in `summary`, and what was
            left out in `skipped`.

        Raises:
            ConfigError: An argument does not belong to the task.
            DataError: No picture can be used.
        """


class Validation(Protocol):
    """Scores a network during a fit, on pictures that are held out.

    Attributes:
        best: Name of the number whose highest value so far is logged too; None for none.
    """

    best: str | None

    def __call__(self, network: "keras.Model") -> tuple[Scores, np.ndarray]:
        """Returns numbers by name, each beginning with `val_`, and a sheet of pictures, uint8 RGB."""


class Verification(Protocol):
    """Compares `.tflite` files with their network.

    Attributes:
        limit: What a file must keep to, by name, for the report.
    """

    limit: dict[str, float]

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the network is given, and the original, both uint8 RGB, from a picture that was read."""

    def score(self, image: np.ndarray, expected: np.ndarray, original: np.ndarray) -> Scores:
        """Returns the scores of a result beside the network's and the original, all uint8 RGB of the same shape.

        Raises:
            ConfigError: The picture is too small.
        """

    def compare(self, scores: Scores, expected: Scores) -> Scores:
        """Returns what the report says of a file, from the mean scores of its results and of the network's."""

    def accepts(self, row: Mapping[str, Any]) -> bool:
        """Returns whether a file is good enough, by its row of the report."""
