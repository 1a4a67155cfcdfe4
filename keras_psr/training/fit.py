"""Fits a network to photographs: from settings to a run folder."""

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from inspect import Parameter, cleandoc, signature
from pathlib import Path
from textwrap import fill
from typing import Any, TypeVar

import keras
import tensorflow as tf

from keras_psr.data.samples import SampleStream
from keras_psr.errors import ConfigError, TrainingError
from keras_psr.inference.upscaler import Upscaler, load_keras
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.networks.receptive_field import measure_geometry
from keras_psr.tasks.config import FitConfig, Stage, list_settings
from keras_psr.tasks.registry import TASKS
from keras_psr.training.adversary import Adversary
from keras_psr.training.callbacks import (
    CountSteps,
    Log,
    OnLog,
    Progress,
    SaveAndValidate,
    ShowProgress,
    StopOnDivergence,
)
from keras_psr.training.devices import build_strategy, is_chief, is_multiworker, warn_of_unused_gpu
from keras_psr.training.display import FitDisplay
from keras_psr.training.optimizer import build_optimizer
from keras_psr.training.precision import choose_precision
from keras_psr.training.run_folder import RunFolder, SavedRun
from keras_psr.training.signals import stop_signals
from keras_psr.training.trainer import Trainer

log = logging.getLogger(__name__)

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""Keras dtype policy by precision. The weights are float32 with each."""

Face = TypeVar("Face", bound=Callable[..., Upscaler])


def name_settings(face: Face) -> Face:
    """Adds every setting to a function's signature and docstring, so that `help` and completion show them."""
    settings = list_settings()
    parameters = [
        Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=one.kind)
        if one.is_shared
        else Parameter(one.name, Parameter.KEYWORD_ONLY, default=None, annotation=one.kind | None)
        for one in settings
    ]
    own = signature(face)
    kept = [parameter for parameter in own.parameters.values() if parameter.kind is not Parameter.VAR_KEYWORD]
    face.__signature__ = own.replace(parameters=[*kept, *parameters])  # type: ignore[attr-defined]
    lines = (
        fill(
            f"{one.name}: {one.text} Default: {one.describe_default().replace('--style', 'style')}.",
            width=100,
            initial_indent=4 * " ",
            subsequent_indent=8 * " ",
        )
        for one in settings
    )
    face.__doc__ = "\n".join([cleandoc(face.__doc__ or ""), "", "Settings:", *lines])
    return face


@name_settings
def fit(
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    verbose: bool = True,
    on_log: OnLog = lambda step, numbers: None,
    command: Sequence[str] = tuple(sys.argv),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **settings: Any,
) -> Upscaler:
    """Fits a network to photographs: for super-resolution or, with the setting `style`, for style transfer.

    Args:
        out: The run folder to write (`training.run_folder.RunFolder`).
        resume: Whether to continue the run in `out`, with its own settings.
        overwrite: Whether to replace a run in `out`.
        verbose: Whether to show progress: as a bar in a terminal, as an updated line in a notebook, else as lines.
        on_log: As for `fit_network`.
        command: As for `fit_network`.
        callbacks: As for `fit_network`.
        **settings: See Settings; None means the default.

    Returns:
        The fitted network, with averaged weights.

    Raises:
        ConfigError: A setting is unknown or not accepted.
        DataError: There are no usable pictures to fit to or to validate on.
        TrainingError: The run folder cannot be used, the fit diverged, or another machine was lost.
        KeyboardInterrupt: SIGINT (Ctrl-C), SIGTERM or SIGHUP stopped the fit; a checkpoint to resume from has been
            written.

    Example:
        upscaler = keras_psr.fit("runs/x2", scale=2, data="photos/", steps=20000)
    """
    saved = SavedRun.read(Path(out)) if resume else None
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given.keys() & {"data", "val"}:  # a single source may be given as a string
        given[name] = (given[name],) if isinstance(given[name], str) else tuple(given[name])
    config = FitConfig.from_json({**(saved.settings if saved else {}), **given})
    with FitDisplay(config, Path(out)) if verbose else nullcontext() as display:
        return fit_network(
            Path(out),
            config,
            resumed=saved,
            overwrite=overwrite,
            display=display,
            on_log=on_log,
            command=command,
            callbacks=callbacks,
        )


def fit_network(
    out: Path,
    config: FitConfig,
    *,
    resumed: SavedRun | None = None,
    overwrite: bool = False,
    display: FitDisplay | None = None,
    on_log: OnLog = lambda step, numbers: None,
    command: Sequence[str] = tuple(sys.argv),
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Upscaler:
    """Fits a network with a complete record of settings. `fit` takes the settings one by one.

    Args:
        out: The run folder to write.
        config: The settings.
        resumed: The run in `out`, to continue it; None for a new run.
        overwrite: Whether to replace a run in `out`.
        display: Where to show the progress; None for nowhere.
        on_log: Called with the step and the numbers, such as losses and validation scores, whenever some are logged.
        command: The command to record in `config.json`.
        callbacks: Further Keras callbacks, for which each gradient step is a batch.

    Returns:
        The fitted network, with averaged weights.

    Raises:
        ConfigError: A setting is not accepted, or differs from that of the resumed run.
        DataError: As for `fit`.
        TrainingError: As for `fit`.
        KeyboardInterrupt: As for `fit`.

    Example:
        upscaler = fit_network(Path("runs/x2"), SuperResolutionConfig(scale=2, steps=20000))
    """
    run, task = RunFolder(out), TASKS[config.task]
    strategy = build_strategy(config.strategy, config.devices, [stage.config.batch_size for stage in config.stages()])
    warn_of_unused_gpu()
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    if resumed:
        resumed.check(config)
    elif is_chief(strategy):
        run.check(overwrite=overwrite)
    choice = choose_precision(config, strategy, resumed.precision if resumed else None)
    computed = replace(config, precision=choice.precision)
    if not is_chief(strategy):
        return _help_fit(run, computed, strategy, resume=resumed is not None)
    if choice.warning:
        log.warning("%s", choice.warning)
    stream = task.build_stream(config)
    validation = task.build_validation(config)
    trainer = build_trainer(computed, strategy)
    trainer.precision = choice
    averaged = task.build_network(config, "float32")
    with run.locked(), stop_signals() as stop:
        progress = Progress()
        if resumed:
            progress = _restore(trainer, run)
            run.go_on(resumed, config, trainer.steps_done)
        else:
            run.check(overwrite=overwrite)  # again, now that no other fit can change it
            run.start(config, command, choice.precision)  # last, because it removes an earlier run
        guard = StopOnDivergence(progress, lambda step: _describe_batch(stream, config.stage_at(step - 1), step - 1))
        shown = [ShowProgress(display)] if display else []
        lines = Log(progress, run, config, [on_log, display.log] if display else [on_log])
        save = SaveAndValidate(progress, run, averaged, validation, lines, guard, stop, config)
        _run_stages(trainer, stream, computed, strategy, [guard, lines, save, *shown, *callbacks])
    if display:
        display.end(run.read_log())
    return load_keras(run.path)


def _help_fit(run: RunFolder, config: FitConfig, strategy: tf.distribute.Strategy, *, resume: bool) -> Upscaler:
    """Does the work of a machine that is not the chief: the same steps on its own samples, without writing files.

    It leaves SIGTERM to the chief, and ends when the chief does.
    """
    with stop_signals():
        task = TASKS[config.task]
        trainer = build_trainer(config, strategy)
        if resume:
            _restore(trainer, run)
        _run_stages(trainer, task.build_stream(config), config, strategy, [])
        averaged = task.build_network(config, "float32")
        trainer.copy_average_to(averaged)
    return Upscaler(averaged, task=config.task)


def _describe_batch(stream: SampleStream, stage: Stage, step: int) -> str:
    return stream.describe_batch(stage.position(step), stage.config.batch_size)


def _restore(trainer: Trainer, run: RunFolder) -> Progress:
    """Restores a trainer from the newest checkpoint. Without a checkpoint, the run starts from the beginning."""
    checkpoint = run.load_checkpoint()
    if checkpoint is None:
        log.warning("%s contains no checkpoint yet, so the run starts from the beginning.", run.path)
        return Progress()
    trainer.steps_done, state = checkpoint
    trainer.restore(state)
    return Progress.from_array(state["progress"])


def _run_stages(
    trainer: Trainer,
    stream: SampleStream,
    config: FitConfig,
    strategy: tf.distribute.Strategy,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Takes all remaining steps, stage by stage.

    Raises:
        TrainingError: Another machine was lost, or TensorFlow failed.
    """
    stages = config.stages()
    for stage in stages:
        if trainer.steps_done < stage.last_step:
            if len(stages) > 1:
                with strategy.scope():
                    trainer.use_loss(TASKS[config.task].build_loss(stage.config))
            _run_stage(trainer, stream.with_crop(stage.config.crop), stage, strategy, callbacks)


def _run_stage(
    trainer: Trainer,
    stream: SampleStream,
    stage: Stage,
    strategy: tf.distribute.Strategy,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Takes the remaining steps of a stage.

    Raises:
        TrainingError: Another machine was lost, or TensorFlow failed.
    """
    first_step = trainer.steps_done

    def build_dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = context.num_replicas_in_sync // context.num_input_pipelines
        first = context.input_pipeline_id * share
        return stream.dataset(
            batch_size=stage.config.batch_size,
            first_sample=stage.position(first_step),
            num_steps=stage.last_step - first_step,
            replicas=range(first, first + share),
            num_replicas=context.num_replicas_in_sync,
        )

    try:
        with strategy.scope():
            trainer.fit(
                strategy.distribute_datasets_from_function(build_dataset),
                steps_per_epoch=stage.last_step - first_step,
                verbose=0,
                shuffle=False,
                callbacks=[CountSteps(), *callbacks],
            )
    except tf.errors.OpError as error:
        # The traceback holds the dataset. At the end of the process, its threads could not return to Python, and the
        # process would wait for them forever.
        traceback.clear_frames(error.__traceback__)
        step, reason = trainer.steps_done, " ".join(str(error.message).split())
        if is_multiworker(strategy):
            raise TrainingError(
                f"Lost another worker after step {step}. Start all of them again with --resume; the run continues "
                f"from its last checkpoint. TensorFlow says: {reason}"
            ) from error
        raise TrainingError(f"TensorFlow failed after step {step}; the last checkpoint is kept: {reason}") from error


def build_trainer(config: FitConfig, strategy: tf.distribute.Strategy | None = None) -> Trainer:
    """Builds the network, its loss and its optimizer, ready for the first step.

    Args:
        config: The settings. If their precision is `auto`, it is chosen here.
        strategy: The strategy to use; None for the one in scope.

    Returns:
        A compiled `Trainer`.

    Raises:
        ConfigError: The architecture or a VGG16 layer is unknown, or the initial model has another architecture.

    Example:
        trainer = build_trainer(SuperResolutionConfig(scale=2, steps=100))
    """
    keras.utils.set_random_seed(config.seed)
    task = TASKS[config.task]
    initial = load_keras(config.init).network if config.init else None
    strategy = strategy or tf.distribute.get_strategy()
    if config.precision == "auto":
        config = replace(config, precision=choose_precision(config, strategy).precision)
    with strategy.scope():
        network = task.build_network(config, POLICIES[config.precision])
        if initial:
            _copy_weights(initial, network, config.init)
        loss = task.build_loss(config)
        adversary = _build_adversary(network, loss, config)
    trainer = Trainer(network, loss, adversary)
    with strategy.scope():
        trainer.compile(optimizer=build_optimizer(config), jit_compile=False)
        trainer.optimizer.build(network.trainable_variables)
    return trainer


def _build_adversary(network: keras.Model, loss: PerceptualLoss, config: FitConfig) -> Adversary | None:
    """Returns the discriminators of a fit; None if it has no adversarial loss."""
    if not loss.is_adversarial:
        return None
    # Only the network's own optimizer keeps small gradients within the range of float16.
    dtype = "float32" if config.precision == "float16" else POLICIES[config.precision]
    scale = measure_geometry(network).scale
    return Adversary(loss.weights["adversarial_loss"], scale, config.stages()[-1], dtype)


SCALE_LAYERS = ("upsample", "exit")
"""Name prefixes of layers that are reinitialised when the scale changes, as when EDSR started x4 from x2."""


def _copy_weights(source: keras.Model, target: keras.Model, name: str) -> None:
    """Copies the weights of layers with the same name and shapes.

    Residual blocks that only the target has add nothing at first, so that it starts with the results of the source
    (Chen et al. 2016, "Net2Net": a deeper network that computes the same function).

    Raises:
        ConfigError: Other layers than `SCALE_LAYERS` and those of added blocks differ, or the source has more blocks.
    """
    known = {layer.name: layer.get_weights() for layer in source.layers}
    added = _added_blocks(source, target)
    left_out = []
    for layer in target.layers:
        weights = known.get(layer.name, [])
        if [weight.shape for weight in weights] == [tuple(weight.shape) for weight in layer.weights]:
            layer.set_weights(weights)
        elif not layer.name.startswith(added):
            left_out.append(layer.name)
    if not all(layer.startswith(SCALE_LAYERS) for layer in left_out) or _added_blocks(target, source):
        raise ConfigError(
            f"init must be a network of the same architecture as {target.name}. Received: {name} ({source.name}, "
            f"{source.count_params()} parameters against {target.count_params()}). Give its --architecture "
            "and --num-filters, and at least as many --residual-blocks."
        )
    for block in added:
        last = [layer for layer in target.layers if layer.name.startswith(block) and layer.weights][-1]
        gain = last.weights[0]  # the kernel of a convolution, or the scale of a normalization
        gain.assign(tf.zeros_like(gain))
    if added:
        log.info("%s has %d fewer residual blocks; the added ones change nothing at first.", name, len(added))
    if left_out:
        log.info("%s has no weights for %s, which are initialised at random.", name, ", ".join(left_out))


def _added_blocks(source: keras.Model, target: keras.Model) -> tuple[str, ...]:
    """Returns the name prefixes of the residual blocks that only the target has."""

    def blocks(network: keras.Model) -> list[str]:
        return [layer.name.removesuffix("add") for layer in network.layers if layer.name.endswith("_add")]

    return tuple(block for block in blocks(target) if block not in blocks(source))
