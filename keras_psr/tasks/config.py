"""Everything that decides a fit, in one flat, checked record."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from keras_psr.constants import DEGRADATIONS, SCALES, STYLE_GRID, STYLE_NORMALIZATIONS
from keras_psr.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
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
        precision: Arithmetic of the network's hidden layers and of VGG16: `float32`, `bfloat16`, `float16`, or `auto`
            for the fastest that is accurate on the device that computes (`training.precision.choose_precision`).
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
    precision: str = "auto"
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

    def stages(self) -> "list[Stage]":
        """Returns the parts of the fit, in order: one, unless a task has more."""
        return [Stage(self, first_step=0, last_step=self.steps, first_sample=0)]

    def stage_at(self, step: int) -> "Stage":
        """Returns the stage that takes the gradient step of this number, counted from 0."""
        return next((stage for stage in self.stages() if step < stage.last_step), self.stages()[-1])

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


@dataclass(frozen=True)
class Stage:
    """A part of a fit with one loss, one size of batch and crop, and one decay of the learning rate.

    Attributes:
        config: The settings that hold in it.
        first_step: Gradient steps before it.
        last_step: Gradient steps done at its end.
        first_sample: Position of its first sample in the stream.
    """

    config: FitConfig
    first_step: int
    last_step: int
    first_sample: int

    def position(self, step: int) -> int:
        """Returns the position in the sample stream after so many steps of the whole fit."""
        return self.first_sample + (step - self.first_step) * self.config.batch_size


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
        warmup_steps: Steps at the start with the pixel loss alone, which are several times as cheap; the learning rate
            decays to zero over them and starts again after them. Not in the paper (SRGAN and ESRGAN start so).
        warmup_batch_size: Crops a step in the warm-up; 0 for the batch size.
        warmup_crop: Side of the crops in the warm-up, in pixels; 0 for the crop.
        warmup_learning_rate: Peak of the learning rate in the warm-up; 0 for the learning rate.
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
    warmup_batch_size: int = 0
    warmup_crop: int = 0
    warmup_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        """Checks each value.

        Raises:
            ConfigError: A value is outside what is accepted; names the field.
        """
        self._require_one_of("scale", SCALES)
        self._require_one_of("degradation", DEGRADATIONS)
        self._require_one_of("pixel_norm", ("l1", "l2"))
        super().__post_init__()
        for name in ("blur_sigma", "warmup_steps", "warmup_batch_size"):
            self._require(getattr(self, name) >= 0, name, "0 or more")
        self._require(0 <= self.warmup_learning_rate <= 1, "warmup_learning_rate", "in [0, 1]")
        is_photo = self.degradation == "photo"
        self._require(not (is_photo and self.blur_sigma), "blur_sigma", "0 with the degradation photo, which blurs")
        smallest = 6 * self.scale  # one window of functional.phase_error
        accepted = f"a multiple of the scale, {self.scale}, and at least {smallest}"
        self._require(self.crop >= smallest and self.crop % self.scale == 0, "crop", accepted)
        fits = self.warmup_crop >= smallest and self.warmup_crop % self.scale == 0
        self._require(fits or self.warmup_crop == 0, "warmup_crop", f"0, or {accepted}")
        has_pixels = self.pixel_weight > 0 or self.warmup_steps == 0
        self._require(has_pixels, "pixel_weight", "above 0 with warmup_steps, which have no other loss")
        any_weight = self.pixel_weight + self.feature_weight > 0
        self._require(any_weight, "pixel_weight", "above 0 where feature_weight is 0: nothing else to fit to")

    def stages(self) -> list[Stage]:
        """Returns the warm-up, if there is one, and the fit to all losses, if it comes to that."""
        if not self.warmup_steps:
            return super().stages()
        warmup = replace(
            self,
            warmup_steps=0,
            batch_size=self.warmup_batch_size or self.batch_size,
            crop=self.warmup_crop or self.crop,
            learning_rate=self.warmup_learning_rate or self.learning_rate,
            feature_weight=0.0,
            style_weight=0.0,
            phase_weight=0.0,
            total_variation_weight=0.0,
        )
        first = Stage(warmup, first_step=0, last_step=min(self.warmup_steps, self.steps), first_sample=0)
        if first.last_step == self.steps:
            return [first]
        rest = Stage(
            self, first_step=first.last_step, last_step=self.steps, first_sample=first.position(first.last_step)
        )
        return [first, rest]


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
