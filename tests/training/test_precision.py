import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_psr.errors import ConfigError
from keras_psr.tasks.config import SuperResolutionConfig
from keras_psr.training import precision
from keras_psr.training.fit import fit
from keras_psr.training.precision import PrecisionChoice, Probe, choose_precision
from keras_psr.training.run_folder import SavedRun

GRADIENTS = (np.ones((1, 2, 2, 1), np.float32), np.ones((3, 3, 1, 1), np.float32))


@pytest.fixture
def measured(monkeypatch):
    """Sets what the probe finds: seconds by precision, and a factor on bfloat16's gradients."""

    def set_probe(float32=1.0, bfloat16=None, factor=1.0):
        probes = {"float32": Probe(float32, GRADIENTS)}
        if bfloat16 is not None:
            probes["bfloat16"] = Probe(bfloat16, (GRADIENTS[0] * factor, GRADIENTS[1]))
        monkeypatch.setattr(precision, "probe", lambda device: probes)

    return set_probe


def choose(began_with=None, **settings):
    return choose_precision(SuperResolutionConfig(**settings), tf.distribute.get_strategy(), began_with)


@pytest.mark.parametrize(
    ("seconds", "expected", "reason"),
    [
        (0.5, "bfloat16", "2 times as fast as float32 here"),
        (0.79, "bfloat16", "1.3 times as fast as float32 here"),
        (0.81, "float32", "bfloat16 is 1.2 times as fast here"),
        (10.0, "float32", "bfloat16 is 0.1 times as fast here"),
        (None, "float32", "this device does not compute bfloat16"),
    ],
)
def test_auto_takes_bfloat16_only_where_it_wins_clearly(measured, seconds, expected, reason):
    measured(bfloat16=seconds)
    assert choose() == PrecisionChoice(expected, reason)


@pytest.mark.parametrize("factor", [1.03, 0.0, float("nan"), float("inf")])
def test_auto_takes_float32_where_gradients_in_bfloat16_are_wrong(measured, factor):
    measured(bfloat16=0.1, factor=factor)
    choice = choose()
    assert choice.precision == "float32" and choice.reason.startswith("gradients in bfloat16 are off by")


def test_deterministic_fits_do_not_depend_on_a_measurement(measured):
    measured(bfloat16=0.1)
    assert choose(deterministic=True).precision == "float32"


def test_what_is_set_is_taken_with_a_warning_where_it_is_slow(measured):
    measured(bfloat16=10.0)
    assert choose(precision="float32") == PrecisionChoice("float32", "as set")
    slow = "bfloat16 takes 10 times as long as float32 on this device."
    assert choose(precision="bfloat16") == PrecisionChoice("bfloat16", "as set", slow)
    assert choose(began_with="bfloat16") == PrecisionChoice("bfloat16", "as the run began", slow)
    assert choose(began_with="float32") == PrecisionChoice("float32", "as the run began")
    measured(bfloat16=1.0)
    assert choose(precision="bfloat16").warning == ""


def test_a_precision_that_cannot_be_computed_is_refused(measured):
    measured(bfloat16=None)
    with pytest.raises(ConfigError, match=r"bfloat16 is not supported by this device.* Use auto or float32\."):
        choose(precision="bfloat16")


def test_the_probe_measures_this_device():
    probes = precision.probe("/device:CPU:0")
    assert probes["float32"].seconds > 0
    for found in probes.values():
        assert [gradient.shape for gradient in found.gradients] == [precision.PROBE_SHAPE, (3, 3, 64, 64)]
    assert choose().precision in probes


def test_the_gradients_of_the_probe_are_those_of_the_convolution():
    """Checks one gradient of the kernel by hand: mean(y^2) has the derivative 2 mean(y dy)."""
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 2.0
    _, of_kernel = precision._build_step(tf.float32)(tf.constant(image), tf.constant(kernel))
    assert float(of_kernel[1, 1, 0, 0]) == pytest.approx(2 * 2 * np.mean(image**2))


def test_a_run_notes_what_came_of_auto_and_goes_on_with_it(measured, tiny_settings, photograph, tmp_path):
    settings = {**tiny_settings, "precision": "auto", "data": str(photograph), "val": str(photograph)}
    told = []

    class Listen(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            told.append(self.model.precision)

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.steps_done == 3:
                raise KeyboardInterrupt

    measured(bfloat16=None)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", **settings, callbacks=[Listen(), Interrupt()])
    assert SavedRun.read(tmp_path / "run").precision == "float32"
    measured(bfloat16=0.1)
    fit(tmp_path / "run", resume=True, callbacks=[Listen()])
    reasons = ["this device does not compute bfloat16", "as the run began"]
    assert told == [PrecisionChoice("float32", reason) for reason in reasons]
