"""Fitting a network to photographs, from settings to a run folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from keras_psr.errors import ConfigError
from keras_psr.inference import Upscaler, load_keras
from keras_psr.training import style_transfer, super_resolution
from keras_psr.training.callbacks import Log, OnLog, SaveAndValidate, StopOnNaN
from keras_psr.training.config import FitConfig, StyleConfig, SuperResolutionConfig
from keras_psr.training.run_folder import RunFolder, saved_config
from keras_psr.training.trainer import Trainer

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""Keras dtype policies: weights stay float32 under each."""

TASKS: dict[type[FitConfig], ModuleType] = {SuperResolutionConfig: super_resolution, StyleConfig: style_transfer}
"""What differs between the tasks, by kind of settings: `build_network`, `build_loss`, `build_stream`, `Validation`."""


def fit(
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_log: OnLog = lambda step, numbers: None,
    command: Sequence[str] = tuple(sys.argv),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **settings: Any,
) -> Upscaler:
    """Fits a super-resolution network to photographs.

    Args:
        out: The run folder to write (`training.run_folder.RunFolder`).
        resume: Go on with the run in `out`, with its own settings.
        overwrite: Replace the run in `out`.
        on_log: Called with the step and numbers, such as losses and validation scores, whenever some are logged.
        command: What `config.json` notes as the command.
        callbacks: Further Keras callbacks; each gradient step is a batch.
        **settings: Fields of `training.config.SuperResolutionConfig`, such as `scale=4`, `data="photos/"` and
            `steps=3000`; or of `StyleConfig`, with `style`.

    Returns:
        The fitted network, with averaged weights.

    Raises:
        ConfigError: A setting is unknown or not accepted.
        DataError: There is nothing usable to fit to or to validate on.
        TrainingError: The run folder cannot be used, or the fit diverged.
        KeyboardInterrupt: The user stopped it; a checkpoint to resume from has been written.
    """
    run = RunFolder(Path(out))
    config = FitConfig.from_json({**(saved_config(run.path) if resume else {}), **_with_lists(settings)})
    run.check(config, resume=resume, overwrite=overwrite)
    task = TASKS[type(config)]
    stream = task.build_stream(config)
    validation = task.Validation(config)
    trainer = build_trainer(config)
    if resume:
        trainer.restore(run.load_checkpoint())
    else:
        run.start(config, command)  # last: it removes what it replaces
    first_step = int(trainer.optimizer.iterations)
    averaged = task.build_network(config, "float32")
    if first_step < config.steps:
        log = Log(run, config.batch_size, config.steps, on_log)
        save = SaveAndValidate(run, averaged, validation, log, config.save_every, config.steps)
        batches = stream.dataset(batch_size=config.batch_size, first_step=first_step, last_step=config.steps)
        try:
            trainer.fit(batches, verbose=0, shuffle=False, callbacks=[StopOnNaN(), log, save, *callbacks])
        except KeyboardInterrupt:
            run.save_checkpoint(int(trainer.optimizer.iterations), trainer.state())
            raise
    return load_keras(run.path)


def build_trainer(config: FitConfig) -> Trainer:
    """The network, its loss and its optimizer, ready for the first step.

    Args:
        config: The settings.

    Returns:
        A compiled `Trainer`.

    Raises:
        ConfigError: The architecture or a VGG16 layer is unknown, or the model to start from does not fit.
    """
    keras.utils.set_random_seed(config.seed)
    task = TASKS[type(config)]
    network = task.build_network(config, POLICIES[config.precision])
    if config.init:
        _copy_weights(load_keras(config.init).network, network, config.init)
    trainer = Trainer(network, task.build_loss(config))
    trainer.compile(optimizer=_build_optimizer(config), jit_compile=False)
    trainer.optimizer.build(network.trainable_variables)
    return trainer


def _build_optimizer(config: FitConfig) -> keras.Optimizer:
    """Adam (the paper, section 4.2) with cosine decay and averaged weights (ours; BasicSR)."""
    momentum = min(config.ema_momentum, 1 - min(1.0, 10 / config.steps))
    return keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps),
        use_ema=momentum > 0,
        ema_momentum=momentum,
    )


def _copy_weights(source: keras.Model, target: keras.Model, name: str) -> None:
    shapes = [[tuple(weight.shape) for weight in network.weights] for network in (source, target)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"init must be a network of the same architecture as {target.name}. Received: {name} ({source.name}, "
            f"{source.count_params()} parameters against {target.count_params()}). Give its --scale, --architecture, "
            "--num-filters and --residual-blocks."
        )
    target.set_weights(source.get_weights())


def _with_lists(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with sources as lists, also where one was given alone."""
    return {
        name: ([value] if isinstance(value, str) else list(value)) if name in ("data", "val") else value
        for name, value in settings.items()
    }
