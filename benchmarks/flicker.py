"""How much films flicker after models have enlarged or painted them, compared with how much they did before.

python benchmarks/flicker.py --data content/ starry-night x2-fast x4-photo

Each picture becomes a film with sensor noise, once still and once moving by a pixel a frame (`inference/flicker.py`).
"""

import click
import numpy as np

import keras_psr
from keras_psr.data.sources import open_sources
from keras_psr.inference.flicker import flicker_ratio
from keras_psr.tasks.style_transfer.evaluation import square
from keras_psr.tasks.super_resolution.evaluation import interpolations

SIDE = 256
"""Side of the squares to which the middle of each picture is reduced, in pixels."""


class Bicubic:
    """Bicubic enlargement, with the interface of `Upscaler`."""

    scale = 4

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns a picture at four times its size."""
        return interpolations(self.scale)["bicubic"](image)


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--data", required=True, help="Folder of photographs.")
def main(models: tuple[str, ...], data: str) -> None:
    """Prints the ratio for bicubic enlargement and MODELS, as means over photographs."""
    photographs = [square(picture.read(), SIDE) for picture in open_sources([data])]
    click.echo(f"{'':24} still  moving")
    for name, network in [("bicubic x4", Bicubic()), *((name, keras_psr.load(name)) for name in models)]:
        still, moving = (np.mean([flicker_ratio(network, one, speed) for one in photographs]) for speed in (0, 1))
        click.echo(f"{name:24} {still:5.2f}  {moving:6.2f}")


if __name__ == "__main__":
    main()
