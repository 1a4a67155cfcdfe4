import subprocess
import sys
import textwrap

TWO_DEVICES = """
import numpy as np, keras, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_psr.losses import PerceptualLoss
from keras_psr.networks import build_network
from keras_psr.training.trainer import Trainer

generator = np.random.default_rng(0)
low_res = generator.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
high_res = generator.integers(0, 256, (8, 24, 24, 3), dtype=np.uint8)

def steps(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = build_network(num_filters=4, num_residual_blocks=1)
        network.get_layer("exit").kernel.assign(np.random.default_rng(1).normal(0, 0.1, (9, 9, 4, 3)))
        weights = {"feature_weight": 1e-3, "phase_weight": 1, "total_variation_weight": 0.1}
        trainer = Trainer(network, PerceptualLoss(scale=4, **weights, shift_pooling=True))
        trainer.compile(optimizer=keras.optimizers.SGD(1e-3), jit_compile=False)
    start = network.get_weights()
    history = trainer.fit(tf.data.Dataset.from_tensor_slices((low_res, high_res)).batch(4), verbose=0).history
    return start, network.get_weights(), history

two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert two.num_replicas_in_sync == 2
start, alone, history = steps(tf.distribute.get_strategy())
_, together, shared_history = steps(two)
for before, one, other in zip(start, alone, together, strict=True):
    moved = np.abs(one - before).max()
    assert moved > 0 and np.abs(one - other).max() < 1e-3 * moved + 1e-7, (moved, np.abs(one - other).max())
for name, values in history.items():
    np.testing.assert_allclose(values, shared_history[name], rtol=1e-4, err_msg=name)
print("equal", len(alone))
"""


def test_two_devices_take_the_same_steps_as_one():
    # In a process of its own: devices must be divided before TensorFlow starts.
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(TWO_DEVICES)], capture_output=True, text=True)
    assert result.stdout.startswith("equal"), result.stderr[-2000:]
