"""Prints how far a GPU's pixels are from the CPU's: a Markdown table of `.tflite` files, by default all shipped ones.

`python benchmarks/gpu_differences.py`, on a machine with a GPU; or with SwiftShader, as tests/conftest.py sets it up,
where a large file takes a minute.
"""

from pathlib import Path

import click
import numpy as np
import skimage.data

from keras_psr.inference.gpu import GpuError, GpuNetwork
from keras_psr.inference.litert import TileInterpreter, is_exact
from keras_psr.inference.registry import shipped_folder
from keras_psr.inference.tflite_metadata import read_metadata


def make_tile(side: int) -> np.ndarray:
    """Returns a tile (side, side, 3) whose upper half is a photograph and whose lower half is noise."""
    tile = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    tile[: side // 2] = skimage.data.astronaut()[: side // 2, 512 - side :]
    return tile


def compare(path: Path) -> str:
    """Returns a row of the table."""
    content = path.read_bytes()
    try:
        gpu = GpuNetwork(content, exact=is_exact(read_metadata(path)))
        tile = make_tile(gpu.shape[1])
        difference = np.abs(gpu(tile).astype(np.float32) - TileInterpreter(content)(tile))
    except GpuError as error:
        return f"| `{path.stem}` | {error} | | |"
    gpu.close()
    return f"| `{path.stem}` | {gpu.adapter} | {difference.max():.2g} | {difference.mean():.2g} |"


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Prints the table."""
    click.echo("| file | computed by | largest difference, grey levels | mean |\n|---|---|---|---|")
    for path in files or sorted(shipped_folder().glob("*/*.tflite")):
        click.echo(compare(path))


if __name__ == "__main__":
    main()
