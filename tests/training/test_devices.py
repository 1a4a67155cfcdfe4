"""Fits on several devices and machines take the same steps as on one."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image

from keras_psr.data.samples import SampleStream
from keras_psr.data.sources import open_sources
from keras_psr.errors import ConfigError
from keras_psr.inference.upscaler import load_network
from keras_psr.training.devices import build_strategy, describe_devices, is_chief, warn_of_unused_gpu
from keras_psr.training.fit import fit
from keras_psr.training.run_folder import RunFolder

SCRIPT = Path(__file__).with_name("fit_process.py")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Twenty steps of a tiny network with every term of the loss, in float32."""
    path = tmp_path_factory.mktemp("pictures") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()[:128, 150:310]).save(path)
    weights = {"feature_weight": 1e-3, "phase_weight": 1.0, "total_variation_weight": 0.1}
    network = {"num_filters": 4, "num_residual_blocks": 1, "precision": "float32", "ema_momentum": 0.5}
    data = {"data": [str(path)], "val": [str(path)]}
    return {**data, "steps": 20, "batch_size": 4, "crop": 48, "optimizer": "adam", **weights, **network}


def start(task, workers=(), index=0):
    """Starts a fit; several workers find each other by their ports."""
    cluster = {"cluster": {"worker": [f"localhost:{port}" for port in workers]}}
    variables = {"TF_CONFIG": json.dumps({**cluster, "task": {"type": "worker", "index": index}})} if workers else {}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps(task)],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Exit code and stderr of a process, after its end."""
    error = process.communicate(timeout=300)[1]
    return process.returncode, error[-3000:]


def run(*args, **kwargs):
    code, error = finish(start(*args, **kwargs))
    assert code == 0, error


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


ROUNDING = 1e-2
"""Relative difference of the states of two runs. Rounding grows over the steps, because gradients of ReLU and L1 jump;
a wrong sum would differ by its whole size."""


def assert_same_state(folder, other):
    """The newest checkpoints of two runs."""
    (step, state), (other_step, other_state) = (RunFolder(path).load_checkpoint() for path in (folder, other))
    assert step == other_step and state.keys() == other_state.keys()
    for name in set(state) - {"progress"}:
        difference = np.linalg.norm((state[name] - other_state[name]).astype(np.float64))
        assert difference <= ROUNDING * np.linalg.norm(state[name].astype(np.float64)), name


def assert_same_run(folder, other):
    """The state and the log of two runs, but for speeds."""
    assert_same_state(folder, other)
    logs = [RunFolder(path).read_log() for path in (folder, other)]
    for line, other_line in zip(*logs, strict=True):
        assert {**line, "crops_per_second": 0} == pytest.approx({**other_line, "crops_per_second": 0}, rel=1e-3)


@pytest.fixture(scope="module")
def alone(settings, tmp_path_factory):
    """The run folder of a fit on one device."""
    out = tmp_path_factory.mktemp("alone") / "run"
    fit(out, **settings)
    return out


@pytest.mark.slow
def test_two_devices_take_the_same_steps_as_one(settings, alone, tmp_path):
    mirrored = {**settings, "strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]}
    run({"out": str(tmp_path / "two"), "settings": mirrored, "logical_cpus": 2})
    assert_same_run(alone, tmp_path / "two")


@pytest.mark.slow
def test_two_devices_take_the_same_steps_of_muon_as_one(settings, tmp_path):
    settings = {**settings, "optimizer": "muon"}
    run({"out": str(tmp_path / "one"), "settings": settings})
    mirrored = {**settings, "strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]}
    run({"out": str(tmp_path / "two"), "settings": mirrored, "logical_cpus": 2})
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_devices_take_the_same_adversarial_steps_as_one(settings, tmp_path):
    # Few steps: two networks that learn from each other let rounding grow sooner.
    settings = {**settings, "adversarial_weight": 1.0, "steps": 6}
    run({"out": str(tmp_path / "one"), "settings": settings})
    mirrored = {**settings, "strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]}
    run({"out": str(tmp_path / "two"), "settings": mirrored, "logical_cpus": 2})
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert "discriminators/000" in RunFolder(tmp_path / "two").load_checkpoint()[1]


@pytest.mark.slow
def test_batch_norm_sees_the_batch_of_all_devices(settings, tmp_path):
    # One step: the biases before a batch norm have no gradient but rounding noise, which Adam makes large.
    settings = {**settings, "architecture": "johnson2016", "steps": 1}
    run({"out": str(tmp_path / "one"), "settings": settings})
    mirrored = {**settings, "strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]}
    run({"out": str(tmp_path / "two"), "settings": mirrored, "logical_cpus": 2})
    one, two = (load_network(tmp_path / name / "model.keras") for name in ("one", "two"))
    norms = [layer.name for layer in one.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 5
    for name in norms:
        variances = [np.asarray(network.get_layer(name).moving_variance) for network in (one, two)]
        np.testing.assert_allclose(*variances, rtol=1e-5)


@pytest.mark.slow
def test_two_machines_take_the_same_steps_as_one_also_when_resumed(settings, alone, tmp_path):
    out, ports = tmp_path / "two", free_ports(2)
    task = {"out": str(out), "settings": {**settings, "strategy": "multiworker", "save_every": 10}, "stop_at": 12}
    for process in [start(task, ports, index) for index in (0, 1)]:
        assert finish(process)[0] != 0
    assert RunFolder(out).load_checkpoint()[0] == 10
    ports = free_ports(2)
    resumed = {"out": str(out), "settings": {"strategy": "multiworker"}, "resume": True}
    processes = [start(resumed, ports, index) for index in (0, 1)]
    for code, error in map(finish, processes):
        assert code == 0, error
    assert {int(line["step"]) for line in RunFolder(out).read_log()} == {10, 20}
    assert_same_state(alone, out)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_worker_that_dies_ends_the_others_within_a_minute(lost, settings, tmp_path):
    ports = free_ports(2)
    long = {**settings, "strategy": "multiworker", "steps": 10_000, "save_every": 2, "feature_weight": 0.0}
    task = {"out": str(tmp_path / "run"), "settings": long, "step_seconds": 0.2}
    processes = [start(task, ports, index) for index in (0, 1)]
    while not list((tmp_path / "run" / "checkpoints").glob("*.npz")) and processes[0].poll() is None:
        time.sleep(0.5)
    processes[lost].kill()
    killed = time.monotonic()
    code, error = finish(processes[1 - lost])
    assert time.monotonic() - killed < 60
    finish(processes[lost])
    assert code != 0
    assert "Lost another worker" in error and "--resume" in error, error


PLAIN_KERAS = """
import keras, numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
model.fit(tf.data.Dataset.from_tensors((np.ones((4, 3)), np.ones((4, 1)))).repeat(2), verbose=0)
"""


@pytest.mark.slow
def test_keras_alone_still_fails_on_several_machines():
    """When this fails, keras issue 20585 is mended: simplify `Trainer.train_step`, `Trainer.__init__` and `fit`."""
    ports = free_ports(2)
    processes = []
    for index in (0, 1):
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = {**os.environ, "TF_CONFIG": config}
        command = [sys.executable, "-c", PLAIN_KERAS]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    results = [finish(process) for process in processes]
    assert all(code != 0 for code, _ in results)
    assert any("Error" in error for _, error in results)


@pytest.mark.parametrize(("num_workers", "share"), [(1, 2), (2, 1), (2, 2), (3, 4)])
def test_no_crop_is_given_twice_and_none_is_lost(num_workers, share, settings, monkeypatch):
    stream = SampleStream(open_sources(settings["data"]), scale=4, crop=48)
    seen, replicas = [], num_workers * share
    batch = stream.batch
    monkeypatch.setattr(
        stream, "batch", lambda first, size: seen.extend(range(first, first + size)) or batch(first, size)
    )
    for worker in range(num_workers):
        local = range(worker * share, (worker + 1) * share)
        dataset = stream.dataset(batch_size=12, first_sample=36, num_steps=3, replicas=local, num_replicas=replicas)
        shapes = [low_res.shape for low_res, _ in dataset]
        assert shapes == [(12 // replicas, 12, 12, 3)] * (3 * share)
    assert sorted(seen) == list(range(3 * 12, 6 * 12))


def test_the_parts_of_a_step_are_the_batch_of_one_device(settings):
    stream = SampleStream(open_sources(settings["data"]), scale=4, crop=48)
    (whole,) = stream.dataset(batch_size=4, first_sample=20, num_steps=1)
    parts = [
        stream.dataset(batch_size=4, first_sample=20, num_steps=1, replicas=range(worker, worker + 1), num_replicas=2)
        for worker in (0, 1)
    ]
    for position in (0, 1):
        joined = np.concatenate([np.asarray(next(iter(part))[position]) for part in parts])
        np.testing.assert_array_equal(joined, whole[position])


def test_without_several_gpus_auto_is_one_device():
    strategy = build_strategy("auto", (), [7])
    assert strategy.num_replicas_in_sync == 1 and is_chief(strategy)
    assert not isinstance(strategy, tf.distribute.MirroredStrategy)
    assert isinstance(build_strategy("mirrored", ("CPU:0",), [7]), tf.distribute.MirroredStrategy)


def test_what_a_fit_computes_on_is_told():
    cpu = describe_devices(build_strategy("none", (), [4]))
    assert re.fullmatch(r"the CPU \(\d+ cores?\)", cpu)
    assert describe_devices(build_strategy("mirrored", ("CPU:0",), [4])) == cpu


def test_gpus_are_told_by_number_and_model(monkeypatch):
    class Gpu:
        name = "/physical_device:GPU:0"

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [Gpu()] if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"device_name": "NVIDIA H100"})
    assert describe_devices(tf.distribute.get_strategy()) == "GPU:0 (NVIDIA H100)"


@pytest.mark.parametrize(
    ("has_driver", "visible", "has_gpu", "warns"),
    [
        (True, None, False, True),
        (True, "0", False, True),
        (True, "", False, False),
        (True, "-1", False, False),
        (True, None, True, False),
        (False, None, False, False),
    ],
)
def test_a_driver_without_a_gpu_is_warned_of(has_driver, visible, has_gpu, warns, monkeypatch, tmp_path, caplog):
    driver = tmp_path / "version"
    if has_driver:
        driver.write_text("NVRM version")
    monkeypatch.setattr("keras_psr.training.devices.NVIDIA_DRIVER", (str(driver),))
    monkeypatch.setattr("keras_psr.training.devices.shutil.which", lambda name: None)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] if has_gpu else [])
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    warn_of_unused_gpu()
    text = f"There is an NVIDIA driver here ({driver}), but TensorFlow sees no GPU, and the fit computes on the CPU."
    assert (text in caplog.text) == warns == bool(caplog.records)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("mirrored", ("GPU:7",), 4), "devices must be among CPU:0. Received: GPU:7."),
        (("none", ("CPU:0",), 4), "devices go only with the strategies auto and mirrored. Received: strategy none."),
        (("multiworker", (), [4]), "needs the environment variable TF_CONFIG, such as .* Received: ''."),
    ],
)
def test_devices_that_do_not_exist_are_refused(args, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=message):
        build_strategy(*args)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}']
)
def test_a_wrong_tf_config_is_refused(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="such as"):
        build_strategy("multiworker", (), [4])
