"""Everything that decides a fit, in one flat, checked record."""

import difflib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from keras_psr.constants import SCALES
from keras_psr.errors import ConfigError

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class FitConfig:
    """The settings of a super-resolution fit; defaults are the recipe of docs/recipe.md.

    Attributes:
        scale: Upscaling factor: 2, 4 or 8.
        architecture: `residual` (the default network) or `johnson2016` (the paper's).
        num_filters: Channels of every hidden layer (the paper: 64).
        num_residual_blocks: Residual blocks (the paper's supplement: 4).
        data: Sources of training pictures (`sources.open_sources`).
        val: Sources of validation pictures, never trained on.
        steps: Gradient steps in all (the paper: 200,000 of batch 4).
        batch_size: Crops a step (the paper: 4 of 288x288).
        crop: Side of the high-resolution crops, in pixels.
        learning_rate: Peak of Adam's learning rate, with cosine decay to zero (the paper: 1e-3, constant).
        seed: Of the initial weights and the sample stream.
        blur_sigma: Gaussian blur before downscaling in high-resolution pixels (the paper: 1.0; benchmarks: 0).
        pixel_weight: Weight of the pixel loss (the paper: 0 beside the feature loss).
        pixel_norm: `l1`, or `l2` (the paper).
        feature_weight: Weight of the VGG16 feature loss (the paper: 1, alone).
        feature_layer: Response that the feature loss compares (the paper: relu2_2).
        phase_weight: Weight of the loss on what repeats with the upsampling lattice; not in the paper.
        total_variation_weight: Weight of the output's total variation.
        warmup_steps: Steps at the start without the feature loss; not in the paper.
        vgg_weights: `bundled`, `imagenet` or a file (`vgg.build_vgg`).
        vgg_pooling: Pooling inside the loss's VGG16: `average`, or `max` (the paper).
        shift_pooling: Move VGG16's pooling grid against the upsampling lattice from step to step; not in the paper.
        ema_momentum: Decay of the averaged weights that are saved, lowered in short fits so that they average over at
            most a tenth of it; 0 saves the last step's. Not in the paper.
        precision: `bfloat16` or `float32`, of the arithmetic in the network's hidden layers and the loss's VGG16.
        save_every: Steps between checkpoints and validations.
        init: Model whose weights to start from (`registry.find_model`); empty for none.
    """

    scale: int = 4
    architecture: str = "residual"
    num_filters: int = 64
    num_residual_blocks: int = 5
    data: tuple[str, ...] = ("sample",)
    val: tuple[str, ...] = ("sample:val",)
    steps: int = 3000
    batch_size: int = 16
    crop: int = 96
    learning_rate: float = 1e-3
    seed: int = 0
    blur_sigma: float = 0.0
    pixel_weight: float = 1.0
    pixel_norm: str = "l1"
    feature_weight: float = 1e-3
    feature_layer: str = "relu2_2"
    phase_weight: float = 0.3
    total_variation_weight: float = 0.0
    warmup_steps: int = 0
    vgg_weights: str = "bundled"
    vgg_pooling: str = "average"
    shift_pooling: bool = True
    ema_momentum: float = 0.999
    precision: str = "bfloat16"
    save_every: int = 500
    init: str = ""

    def __post_init__(self) -> None:
        """Checks each value.

        Raises:
            ConfigError: A value is outside what is accepted; names the field.
        """
        choices = {
            "scale": SCALES,
            "pixel_norm": ("l1", "l2"),
            "vgg_pooling": ("average", "max"),
            "precision": PRECISIONS,
        }
        for name, accepted in choices.items():
            _require(getattr(self, name) in accepted, self, name, f"one of {', '.join(map(str, accepted))}")
        for name in ("steps", "batch_size", "save_every", "num_filters", "num_residual_blocks"):
            _require(getattr(self, name) >= 1, self, name, "at least 1")
        for name in ("pixel_weight", "feature_weight", "phase_weight", "total_variation_weight"):
            _require(0 <= getattr(self, name) < float("inf"), self, name, "0 or more")
        for name in ("blur_sigma", "warmup_steps", "seed"):
            _require(getattr(self, name) >= 0, self, name, "0 or more")
        _require(0 <= self.ema_momentum < 1, self, "ema_momentum", "in [0, 1)")
        _require(0 < self.learning_rate <= 1, self, "learning_rate", "in (0, 1]")
        smallest = 6 * self.scale  # one window of functional.phase_error
        fits = self.crop >= smallest and self.crop % self.scale == 0
        _require(fits, self, "crop", f"a multiple of the scale, {self.scale}, and at least {smallest}")
        any_weight = self.pixel_weight + self.feature_weight > 0
        _require(any_weight, self, "pixel_weight", "above 0 where feature_weight is 0: nothing else to fit to")

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON-ready values, by name."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> "FitConfig":
        """The record from `to_json`'s form; settings left out have their defaults.

        Raises:
            ConfigError: A name is unknown, or a value is of the wrong type or not accepted.
        """
        defaults = {item.name: item.default for item in fields(cls)}
        values = {}
        for name, value in settings.items():
            if name not in defaults:
                near = difflib.get_close_matches(name, defaults, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(defaults)}."
                raise ConfigError(f"Unknown setting {name!r}. {hint}")
            values[name] = _typed(name, value, defaults[name])
        return cls(**values)


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings in a JSON file: an object of names and values, or a run folder's `config.json`.

    Raises:
        ConfigError: It cannot be read or is not such a file.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config must be a JSON file of settings. Received: {path} ({error}).") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"--config must hold one JSON object. Received in {path}: {type(settings).__name__}.")
    return settings.get("config", settings)


def _require(condition: bool, config: FitConfig, name: str, accepted: str) -> None:
    if not condition:
        raise ConfigError(f"{name} must be {accepted}. Received: {getattr(config, name)}.")


def _typed(name: str, value: Any, default: Any) -> Any:
    """The value as the default's type; whole numbers pass for floats, lists for tuples."""
    if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{name} must be of type {type(default).__name__}. Received: {value!r}.")
    return value
