import os
import sys

import pytest
from click.testing import CliRunner

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(autouse=True)
def fixed_seed():
    """The same random numbers in each test; light tests do not pay for importing Keras."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def runner():
    return CliRunner()


TINY = {
    "num_filters": 4,
    "num_residual_blocks": 1,
    "crop": 48,
    "batch_size": 2,
    "steps": 4,
    "save_every": 2,
    "feature_weight": 0.0,
}
"""Settings of a fit that takes seconds."""


@pytest.fixture(scope="session")
def tiny_settings():
    return TINY


@pytest.fixture(scope="session")
def photograph(tmp_path_factory):
    """A PNG file of 64x96 pixels, part of a photograph."""
    import skimage.data
    from PIL import Image

    path = tmp_path_factory.mktemp("photographs") / "coffee.png"
    Image.fromarray(skimage.data.coffee()[100:164, 200:296]).save(path)
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, photograph):
    """The run folder of a fit to x4."""
    import keras_psr

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    keras_psr.fit(folder, data=str(photograph), val=str(photograph), **TINY)
    return folder
