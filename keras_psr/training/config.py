"""Everything that decides a fit, in one flat, checked record."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from keras_psr.constants import DEGRADATIONS, SCALES, STYLE_GRID, STYLE_NORMALIZATIONS
from keras_psr.errors import ConfigError

PRECISIONS = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("muon", "adam")
STRATEGIES = ("auto", "none", "mirrored", "multiworker")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The settings that both tasks share; defaults of super-resolution are the recipe of docs/recipe.md.

    Attributes:
        architecture: Name of a builder in `networks`.
        num_filters: Channels of the hidden layers; of styles, those of the first.
        num_residual_blocks: Residual blocks (the paper's supplement: 4, for styles 5).
        data: Sources of training pictures (`sources.open_sources`).
        val: Sources of validation pictures, never trained on.
        steps: Gradient steps in all (the paper: 200,000, for styles 40,000).
        batch_size: Crops a step, over all devices (the paper: 4).
        crop: Side of the crops that the loss sees, in pixels (the paper: 288, for styles 256).
        optimizer: `muon` (`training.optimizer.Muon`), or `adam` (the paper).
        learning_rate: Peak of the learning rate, with cosine decay to zero (the paper: 1e-3, constant).
        seed: Of the initial weights and the sample stream.
        style_weight: Weight of the style loss (Gram matrices of VGG16 responses).
        style_layers: Responses that the style loss compares (the paper: relu1_2, relu2_2, relu3_3, relu4_3).
        phase_weight: Weight of the loss on what repeats with the upsampling lattice; not in the paper.
        total_variation_weight: Weight of the output's total variation.
        vgg_weights: `bundled`, `imagenet` or a file (`vgg.build_vgg`).
        vgg_pooling: Pooling inside the loss's VGG16: `average`, or `max` (the paper).
        ema_momentum: Decay of the averaged weights that are saved, lowered in short fits so that they average over at
            most a tenth of it; 0 saves the last step's. Not in the paper.
        precision: `bfloat16`, `float32` or `float16`: the arithmetic in the network's hidden layers and in VGG16.
        save_every: Steps between checkpoints and validations.
        keep: Checkpoints kept, the newest ones.
        init: Model whose weights to start from (`registry.find_model`); empty for none.
        strategy: `auto` (mirrored where there are several GPUs), `none`, `mirrored` or `multiworker`.
        devices: Devices of the mirrored strategy, such as `GPU:0`; empty for all GPUs.
        deterministic: Use deterministic operations only, so that the same command gives the same bits.
    """

    architecture: str
    num_filters: int
    num_residual_blocks: int = 5
    data: tuple[str, ...] = ("sample",)
    val: tuple[str, ...] = ("sample:val",)
    steps: int
    batch_size: int
    crop: int
    optimizer: str = "muon"
    learning_rate: float = 1e-3
    seed: int = 0
    style_weight: float
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    phase_weight: float
    total_variation_weight: float = 0.0
    vgg_weights: str = "bundled"
    vgg_pooling: str = "average"
    ema_momentum: float = 0.999
    precision: str = "bfloat16"
    save_every: int = 500
    keep: int = 2
    init: str = ""
    strategy: str = "auto"
    devices: tuple[str, ...] = ()
    deterministic: bool = False

    def __post_init__(self) -> None:
        """Checks each value.

        Raises:
            ConfigError: A value is outside what is accepted; names the field.
        """
        self._require_one_of("vgg_pooling", ("average", "max"))
        self._require_one_of("precision", PRECISIONS)
        self._require_one_of("optimizer", OPTIMIZERS)
        self._require_one_of("strategy", STRATEGIES)
        for name in ("steps", "batch_size", "save_every", "keep", "num_filters", "num_residual_blocks"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        for name in (field.name for field in fields(self) if field.name.endswith("_weight")):
            self._require(0 <= getattr(self, name) < float("inf"), name, "0 or more")
        self._require(self.seed >= 0, "seed", "0 or more")
        self._require(0 <= self.ema_momentum < 1, "ema_momentum", "in [0, 1)")
        self._require(0 < self.learning_rate <= 1, "learning_rate", "in (0, 1]")

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON-ready values, by name."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @staticmethod
    def from_json(settings: dict[str, Any]) -> "SuperResolutionConfig | StyleConfig":
        """The record of the task that the settings mean, from `to_json`'s form; what is left out has its default.

        A `style` makes it a style transfer.

        Raises:
            ConfigError: A name is unknown or belongs to the other task, or a value is of the wrong type or not
                accepted.
        """
        tasks: list[type[SuperResolutionConfig] | type[StyleConfig]] = [SuperResolutionConfig, StyleConfig]
        config_class, other = reversed(tasks) if settings.get("style") else tasks
        defaults = default_settings(config_class)
        values = {}
        for name, value in settings.items():
            if name not in defaults:
                _refuse(name, defaults, other)
            values[name] = _typed(name, value, defaults[name])
        return config_class(**values)

    def _require(self, condition: bool, name: str, accepted: str) -> None:
        if not condition:
            raise ConfigError(f"{name} must be {accepted}. Received: {getattr(self, name)}.")

    def _require_one_of(self, name: str, accepted: Sequence[Any]) -> None:
        self._require(getattr(self, name) in accepted, name, f"one of {', '.join(map(str, accepted))}")


@dataclass(frozen=True, kw_only=True)
class SuperResolutionConfig(FitConfig):
    """The settings of a super-resolution fit.

    Attributes:
        scale: Upscaling factor: 2, 4 or 8.
        degradation: How low-resolution crops are made: `bicubic`, or `photo` with blur, noise and JPEG.
        blur_sigma: Gaussian blur before downscaling in high-resolution pixels (the paper: 1.0; benchmarks: 0).
        pixel_weight: Weight of the pixel loss (the paper: 0 beside the feature loss).
        pixel_norm: `l1`, or `l2` (the paper).
        feature_weight: Weight of the VGG16 feature loss (the paper: 1, alone).
        feature_layer: Response that the feature loss compares (the paper: relu2_2).
        shift_pooling: Move VGG16's pooling grid against the upsampling lattice from step to step; not in the paper.
        warmup_steps: Steps at the start without the feature and style losses; not in the paper.
    """

    architecture: str = "residual"
    num_filters: int = 64
    steps: int = 3000
    batch_size: int = 16
    crop: int = 96
    style_weight: float = 0.0
    phase_weight: float = 0.3
    scale: int = 4
    degradation: str = "bicubic"
    blur_sigma: float = 0.0
    pixel_weight: float = 1.0
    pixel_norm: str = "l1"
    feature_weight: float = 1.5e-4
    feature_layer: str = "relu2_2"
    shift_pooling: bool = True
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Checks each value.

        Raises:
            ConfigError: A value is outside what is accepted; names the field.
        """
        self._require_one_of("scale", SCALES)
        self._require_one_of("degradation", DEGRADATIONS)
        self._require_one_of("pixel_norm", ("l1", "l2"))
        super().__post_init__()
        for name in ("blur_sigma", "warmup_steps"):
            self._require(getattr(self, name) >= 0, name, "0 or more")
        is_photo = self.degradation == "photo"
        self._require(not (is_photo and self.blur_sigma), "blur_sigma", "0 with the degradation photo, which blurs")
        smallest = 6 * self.scale  # one window of functional.phase_error
        fits = self.crop >= smallest and self.crop % self.scale == 0
        self._require(fits, "crop", f"a multiple of the scale, {self.scale}, and at least {smallest}")
        any_weight = self.pixel_weight + self.feature_weight > 0
        self._require(any_weight, "pixel_weight", "above 0 where feature_weight is 0: nothing else to fit to")


@dataclass(frozen=True, kw_only=True)
class StyleConfig(FitConfig):
    """The settings of a style-transfer fit.

    Attributes:
        style: File of the painting; of a folder each picture gets a fit of its own.
        style_size: Longer side to which the painting is reduced, in pixels (the paper's code: 256 or 384).
        style_normalization: What the style loss is divided by (`functional.gram_error`): `energy`, to which the default
            weights belong, divides it by that of the painting, and the content loss by that of the photograph; `paper`
            and `mean`, the form in the paper's code, leave both as they are.
        photograph_size: Shorter side to which photographs are reduced before crops are cut, in pixels (the paper: both
            sides, to 256); 0 leaves them as they are.
        content_weight: Weight of the feature loss against the photograph.
        content_layer: Response that it compares (the paper: relu3_3; its first version: relu2_2).
    """

    architecture: str = "style"
    num_filters: int = 16
    steps: int = 2000
    batch_size: int = 4
    crop: int = 256
    style_weight: float = 2.0
    phase_weight: float = 0.01
    total_variation_weight: float = 1e-4
    style: str = ""
    style_size: int = 384
    style_normalization: str = "energy"
    photograph_size: int = 288
    content_weight: float = 1.0
    content_layer: str = "relu3_3"

    def __post_init__(self) -> None:
        """Checks each value.

        Raises:
            ConfigError: A value is outside what is accepted; names the field.
        """
        super().__post_init__()
        self._require_one_of("style_normalization", STYLE_NORMALIZATIONS)
        self._require(self.style_size >= 32, "style_size", "at least 32")
        fits = self.crop >= 32 and self.crop % STYLE_GRID == 0
        self._require(fits, "crop", f"a multiple of {STYLE_GRID}, and at least 32")
        is_cuttable = self.photograph_size == 0 or self.photograph_size >= self.crop
        self._require(is_cuttable, "photograph_size", f"0, or at least the crop, {self.crop}")
        self._require(self.style_weight > 0, "style_weight", "above 0: --style asks for a style loss")


def default_settings(config_class: type[FitConfig]) -> dict[str, Any]:
    """The default of each setting of a task, by name."""
    return {field.name: field.default for field in fields(config_class)}


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


def _refuse(name: str, known: dict[str, Any], other_task: type[FitConfig]) -> NoReturn:
    """Raises ConfigError for a setting that a task does not have."""
    if name in default_settings(other_task):
        reason = "is for super-resolution; leave it out beside" if other_task is SuperResolutionConfig else "goes with"
        raise ConfigError(f"{name} {reason} --style.")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    raise ConfigError(f"Unknown setting {name!r}. {hint}")


def _typed(name: str, value: Any, default: Any) -> Any:
    """The value as the default's type; whole numbers pass for floats, lists for tuples."""
    if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{name} must be of type {type(default).__name__}. Received: {value!r}.")
    return value
