"""The settings of a fit: one flat, checked record for each task, with the defaults and help texts."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

from keras_psr.constants import (
    DEGRADATIONS,
    DISCRIMINATOR_GRID,
    SCALES,
    STYLE_GRID,
    STYLE_NORMALIZATIONS,
    STYLE_TRANSFER,
    SUPER_RESOLUTION,
)
from keras_psr.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
OPTIMIZERS = ("muon", "adam")
STRATEGIES = ("auto", "none", "mirrored", "multiworker")

Config = TypeVar("Config", bound="FitConfig")


def setting(text: str, default: Any = MISSING) -> Any:
    """Returns a field of settings with a text, which appears in the help of its option and in docstrings."""
    return field(default=default, metadata={"text": text})


def describe_fields(config_class: type[Config]) -> type[Config]:
    """Adds the texts of a class's own fields to its docstring."""
    own = {
        one.name: one.metadata["text"]
        for one in fields(config_class)
        if one.name in config_class.__annotations__ and one.metadata
    }
    lines = "".join(f"\n        {name}: {text}" for name, text in own.items())
    config_class.__doc__ = f"{config_class.__doc__}\n\n    Attributes:{lines}\n    "
    return config_class


@describe_fields
@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The settings that all tasks share. The defaults of super-resolution are the recipe of docs/recipe.md."""

    task: ClassVar[str]

    data: tuple[str, ...] = setting(
        "Training pictures: a folder, a quoted glob, tfds:NAME[:SPLIT] or sample.", ("sample",)
    )
    val: tuple[str, ...] = setting(
        "Validation pictures, which the fit never sees, from the same kinds of source.", ("sample:val",)
    )
    steps: int = setting("Number of gradient steps (the paper: 200,000; for styles 40,000).")
    batch_size: int = setting("Crops per step, over all devices (the paper: 4).")
    crop: int = setting("Side of the crops that the loss sees, in pixels (the paper: 288; for styles 256).")
    optimizer: str = setting("Optimizer: muon, or adam as in the paper.", "muon")
    learning_rate: float = setting("Peak of the learning rate, which decays to zero (the paper: 1e-3, constant).", 1e-3)
    seed: int = setting("Seed of the initial weights and of the sample stream.", 0)
    init: str = setting("Model to start from: a shipped model's name, a run folder or a .keras file.", "")
    save_every: int = setting("Steps between checkpoints; each comes with a validation.", 500)
    keep: int = setting("Number of checkpoints to keep.", 2)
    strategy: str = setting(
        "Devices: auto (all GPUs), none (one device), mirrored, or multiworker (the machines in TF_CONFIG).", "auto"
    )
    devices: tuple[str, ...] = setting("Devices of the mirrored strategy, such as GPU:0; none for all GPUs.", ())
    deterministic: bool = setting(
        "Use only deterministic operations, so that the same command gives the same bits.", False
    )
    precision: str = setting(
        "Precision of the hidden layers and of VGG16: float32, bfloat16, float16, or auto for the fastest one that is "
        "accurate on this device.",
        "auto",
    )
    architecture: str = setting(
        "Network: residual, fast, or the paper's johnson2016; for styles: style or johnson2016-style."
    )
    num_filters: int = setting("Channels of the hidden layers; for styles, of the first one.")
    num_residual_blocks: int = setting("Number of residual blocks (the paper: 4; for styles 5).", 5)
    style_weight: float = setting(
        "Weight of the style loss; in super-resolution, it compares textures with the original."
    )
    style_layers: tuple[str, ...] = setting(
        "VGG16 layers that the style loss compares; the default is the paper's.",
        ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
    )
    phase_weight: float = setting(
        "Weight of the loss for errors that repeat with the upsampling lattice; not in the paper."
    )
    total_variation_weight: float = setting("Weight of the output's total variation.", 0.0)
    vgg_weights: str = setting("Weights of VGG16: bundled, imagenet (Keras downloads them) or a file.", "bundled")
    vgg_pooling: str = setting("Pooling inside the loss's VGG16: average, or max as in the paper.", "average")
    ema_momentum: float = setting(
        "Decay of the averaged weights, which are the ones saved; lower in short fits, so that the average covers at "
        "most a tenth of the steps. 0 saves the weights of the last step. Not in the paper.",
        0.999,
    )

    def __post_init__(self) -> None:
        """Checks each value.

        Raises:
            ConfigError: A value is not accepted.
        """
        self._require_one_of("vgg_pooling", ("average", "max"))
        self._require_one_of("precision", PRECISIONS)
        self._require_one_of("optimizer", OPTIMIZERS)
        self._require_one_of("strategy", STRATEGIES)
        for name in ("steps", "batch_size", "save_every", "keep", "num_filters", "num_residual_blocks"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        for name in (one.name for one in fields(self) if one.name.endswith("_weight")):
            self._require(0 <= getattr(self, name) < float("inf"), name, "0 or more")
        self._require(self.seed >= 0, "seed", "0 or more")
        self._require(0 <= self.ema_momentum < 1, "ema_momentum", "in [0, 1)")
        self._require(0 < self.learning_rate <= 1, "learning_rate", "in (0, 1]")

    def stages(self) -> "list[Stage]":
        """Returns the stages of the fit, in order: a single one, unless the task has more."""
        return [Stage(self, first_step=0, last_step=self.steps, first_sample=0)]

    def stage_at(self, step: int) -> "Stage":
        """Returns the stage to which a gradient step belongs, counted from 0."""
        return next((stage for stage in self.stages() if step < stage.last_step), self.stages()[-1])

    def run_name(self) -> str:
        """Returns the beginning of a run folder's name."""
        raise NotImplementedError

    def split(self: Config) -> dict[str, Config]:
        """Returns the settings of each fit by folder below `--out`. For a single fit, it is that folder itself, ""."""
        return {"": self}

    def to_json(self) -> dict[str, Any]:
        """Returns the task and the settings by name, as values for JSON."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"task": self.task, **values}

    @classmethod
    def from_json(cls: type[Config], settings: Mapping[str, Any]) -> Config:
        """Builds the record of the task that the settings name (`name_task`). Missing settings have their defaults.

        Args:
            settings: Values by name, as from `to_json`.

        Returns:
            The record.

        Raises:
            ConfigError: A name is unknown or belongs to another task, a value has the wrong type or is not accepted,
                or the settings belong to another task than this class.

        Example:
            config = FitConfig.from_json({"scale": 2, "steps": 600})
        """
        task = name_task(settings)
        config_class = CONFIGS.get(str(task))
        if config_class is None:
            raise ConfigError(f"task must be one of {', '.join(CONFIGS)}. Received: {task!r}.")
        if not issubclass(config_class, cls):
            raise ConfigError(f"The settings must be those of {cls.task}. Received: {task}.")
        defaults = default_settings(config_class)
        values = {}
        for name, value in settings.items():
            if name == "task":
                continue
            if name not in defaults:
                _refuse(name, config_class)
            values[name] = _typed(name, value, defaults[name])
        return config_class(**values)

    def _require(self, condition: bool, name: str, accepted: str) -> None:
        if not condition:
            raise ConfigError(f"{name} must be {accepted}. Received: {getattr(self, name)}.")

    def _require_one_of(self, name: str, accepted: Sequence[Any]) -> None:
        self._require(getattr(self, name) in accepted, name, f"one of {', '.join(map(str, accepted))}")


@dataclass(frozen=True)
class Stage:
    """A part of a fit with one loss, one batch size, one crop and one decay of the learning rate.

    Attributes:
        config: The settings that apply in this stage.
        first_step: Number of gradient steps before this stage.
        last_step: Number of gradient steps at its end.
        first_sample: Position of its first sample in the stream.
    """

    config: FitConfig
    first_step: int
    last_step: int
    first_sample: int

    def position(self, step: int) -> int:
        """Returns the position in the sample stream after a number of steps of the whole fit."""
        return self.first_sample + (step - self.first_step) * self.config.batch_size


@describe_fields
@dataclass(frozen=True, kw_only=True)
class SuperResolutionConfig(FitConfig):
    """The settings of a super-resolution fit."""

    task: ClassVar[str] = SUPER_RESOLUTION

    architecture: str = "residual"
    num_filters: int = 64
    steps: int = 3000
    batch_size: int = 16
    crop: int = 96
    style_weight: float = 0.0
    phase_weight: float = 0.3
    scale: int = setting("Upscaling factor: 2, 4 or 8.", 4)
    degradation: str = setting(
        "How pictures are reduced: bicubic, or photo, which adds blur, noise and JPEG.", "bicubic"
    )
    blur_sigma: float = setting(
        "Sigma of a Gaussian blur before the reduction, in high-resolution pixels (the paper: 1).", 0.0
    )
    pixel_weight: float = setting("Weight of the pixel loss (the paper: 0 with the feature loss).", 1.0)
    pixel_norm: str = setting("Norm of the pixel loss: l1, or l2 as in the paper.", "l1")
    feature_weight: float = setting("Weight of the VGG16 feature loss (the paper: 1, and no other loss).", 1.5e-4)
    feature_layer: str = setting("VGG16 layer that the feature loss compares; the default is the paper's.", "relu2_2")
    adversarial_weight: float = setting(
        "Strength of the adversarial loss: the norm of its gradient at the output, divided by that of all other "
        "losses together. 1 draws textures that look real, and costs PSNR; not in the paper.",
        0.0,
    )
    shift_pooling: bool = setting(
        "Shift VGG16's pooling grid from step to step, so that it leaves no grid in the output; not in the paper.",
        True,
    )
    warmup_steps: int = setting(
        "Number of steps at the start with only the pixel loss, which are several times as fast. The learning rate "
        "decays to zero over them and then starts again. Not in the paper; as in SRGAN and ESRGAN.",
        0,
    )
    warmup_batch_size: int = setting("Crops per step in the warm-up; 0 for the batch size.", 0)
    warmup_crop: int = setting("Side of the crops in the warm-up, in pixels; 0 for the crop.", 0)
    warmup_learning_rate: float = setting("Peak of the learning rate in the warm-up; 0 for the learning rate.", 0.0)

    def __post_init__(self) -> None:
        """Checks each value.

        Raises:
            ConfigError: A value is not accepted.
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
        is_large = self.adversarial_weight == 0 or self.crop >= 2 * DISCRIMINATOR_GRID
        self._require(is_large, "crop", f"at least {2 * DISCRIMINATOR_GRID} with adversarial_weight")
        has_pixels = self.pixel_weight > 0 or self.warmup_steps == 0
        self._require(has_pixels, "pixel_weight", "above 0 with warmup_steps, which use no other loss")
        any_weight = self.pixel_weight + self.feature_weight > 0
        self._require(
            any_weight, "pixel_weight", "above 0 if feature_weight is 0, because no other loss keeps the content"
        )

    def stages(self) -> list[Stage]:
        """Returns the warm-up, if there is one, and the stage with all losses, if any steps are left for it."""
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
            adversarial_weight=0.0,
        )
        first = Stage(warmup, first_step=0, last_step=min(self.warmup_steps, self.steps), first_sample=0)
        if first.last_step == self.steps:
            return [first]
        rest = Stage(
            self, first_step=first.last_step, last_step=self.steps, first_sample=first.position(first.last_step)
        )
        return [first, rest]

    def run_name(self) -> str:
        """Returns the scale, as in `x4`."""
        return f"x{self.scale}"


@describe_fields
@dataclass(frozen=True, kw_only=True)
class StyleConfig(FitConfig):
    """The settings of a style-transfer fit."""

    task: ClassVar[str] = STYLE_TRANSFER

    architecture: str = "style"
    num_filters: int = 16
    steps: int = 2000
    batch_size: int = 4
    crop: int = 256
    style_weight: float = 2.0
    phase_weight: float = 0.01
    total_variation_weight: float = 1e-4
    style: str = setting(
        "Painting: fit a style network to it instead. keras-psr fit also takes a folder, and fits a network to each "
        "picture in it.",
        "",
    )
    style_size: int = setting(
        "Longer side of the painting after it is reduced, in pixels (the paper's code: 256 or 384).", 384
    )
    style_normalization: str = setting(
        "Scale of the style loss: energy (relative to the painting's own responses, and content to the photograph's), "
        "paper, or mean as in the paper's code.",
        "energy",
    )
    photograph_size: int = setting(
        "Shorter side of photographs after they are reduced, before crops are cut, in pixels (the paper: both sides "
        "256); 0 leaves them as they are.",
        288,
    )
    chroma_weight: float = setting(
        "Weight of the total variation of the output's chroma, relative to the painting's; not in the paper.", 0.2
    )
    stability_weight: float = setting(
        "Weight of the squared difference between two frames of a film, against flicker; not in the paper.", 0.0006
    )
    content_weight: float = setting("Weight of the feature loss against the photograph.", 1.0)
    content_layer: str = setting(
        "VGG16 layer that this loss compares (the paper: relu3_3; its first version: relu2_2).", "relu3_3"
    )

    def __post_init__(self) -> None:
        """Checks each value.

        Raises:
            ConfigError: A value is not accepted.
        """
        super().__post_init__()
        self._require_one_of("style_normalization", STYLE_NORMALIZATIONS)
        self._require(self.style_size >= 32, "style_size", "at least 32")
        fits = self.crop >= 32 and self.crop % STYLE_GRID == 0
        self._require(fits, "crop", f"a multiple of {STYLE_GRID}, and at least 32")
        is_cuttable = self.photograph_size == 0 or self.photograph_size >= self.crop
        self._require(is_cuttable, "photograph_size", f"0, or at least the crop, {self.crop}")
        self._require(self.style_weight > 0, "style_weight", "above 0 with --style")

    def run_name(self) -> str:
        """Returns the painting's file name without its extension."""
        return Path(self.style).stem

    def split(self) -> "dict[str, StyleConfig]":
        """Returns one fit or, if the style is a folder, one for each painting in it."""
        if not Path(self.style).is_dir():
            return super().split()
        from keras_psr.images.finding import find_images

        return {path.stem: replace(self, style=str(path)) for path in find_images(self.style)}


CONFIGS: dict[str, type[FitConfig]] = {one.task: one for one in (SuperResolutionConfig, StyleConfig)}
"""Class of settings by task."""


def name_task(settings: Mapping[str, Any]) -> str:
    """Returns the task that settings name, or else style transfer if there is a painting.

    Users name no task, and neither do old runs and cards.
    """
    painting = settings.get("style", "")
    return settings.get("task", STYLE_TRANSFER if painting else SUPER_RESOLUTION)


@dataclass(frozen=True)
class Setting:
    """A setting as help texts describe it.

    Attributes:
        name: Name of the setting.
        text: Its description.
        kind: Its type.
        defaults: Its default in each task that has it.
    """

    name: str
    text: str
    kind: Any
    defaults: dict[str, Any]

    @property
    def default(self) -> Any:
        """Returns the default in the first task that has the setting."""
        return next(iter(self.defaults.values()))

    @property
    def is_shared(self) -> bool:
        """Returns whether the default is the same in all tasks that have the setting."""
        return all(default == self.default for default in self.defaults.values())

    def describe_default(self) -> str:
        """Returns the default as a user would type it, and the default for styles if that differs."""
        first, *others = (
            " ".join(default) if isinstance(default, tuple) else str(default) for default in self.defaults.values()
        )
        return (first or "none") + ("" if self.is_shared else f"; {others[0]} with --style")


def list_settings() -> list[Setting]:
    """Returns the settings of all tasks: first those that choose a task, then those that all tasks share."""
    known: dict[str, Any] = dict.fromkeys(("scale", "style"))
    config_classes: list[type[FitConfig]] = [FitConfig, *CONFIGS.values()]
    for config_class in config_classes:
        known |= {one.name: one for one in fields(config_class) if one.metadata}
    defaults = {task: default_settings(config_class) for task, config_class in CONFIGS.items()}
    return [
        Setting(
            name, one.metadata["text"], one.type, {task: own[name] for task, own in defaults.items() if name in own}
        )
        for name, one in known.items()
    ]


def default_settings(config_class: type[FitConfig]) -> dict[str, Any]:
    """Returns the default of each setting of a task, by name."""
    return {one.name: one.default for one in fields(config_class)}


def read_config_file(path: Path) -> dict[str, Any]:
    """Reads settings from a JSON file: an object of names and values, or a run folder's `config.json`.

    Raises:
        ConfigError: The file cannot be read or has another content.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config must be a JSON file of settings. Received: {path} ({error}).") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"--config must contain one JSON object. Received in {path}: {type(settings).__name__}.")
    return settings.get("config", settings)


def _refuse(name: str, config_class: type[FitConfig]) -> NoReturn:
    """Raises ConfigError for a setting that a task does not have."""
    owners = [task for task, other in CONFIGS.items() if name in default_settings(other)]
    if name == "style":
        raise ConfigError(f"--style does not go with settings for {config_class.task}. Leave out either.")
    if owners == [STYLE_TRANSFER]:
        raise ConfigError(f"{name} goes only with --style.")
    if owners:
        raise ConfigError(f"{name} is for {owners[0]}. Leave it out with --style.")
    known = default_settings(config_class)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    raise ConfigError(f"Unknown setting {name!r}. {hint}")


def _typed(name: str, value: Any, default: Any) -> Any:
    """Returns a value in its default's type. Whole numbers are accepted as floats, and lists as tuples."""
    if isinstance(default, tuple) and isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{name} must be of type {type(default).__name__}. Received: {value!r}.")
    return value
