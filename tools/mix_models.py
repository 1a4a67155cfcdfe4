"""Mixes the weights of a run with those of the model that it started from, and writes a new run folder.

python tools/mix_models.py runs/x4-textures runs/x4-detail --share 0.85

A fit with `--adversarial-weight` invents textures and loses PSNR. A network between the two ends of such a fit keeps
most of the textures, has some of the PSNR back, and adds less noise (Wang et al. 2018, "ESRGAN", section 3.4).
"""

import json
import shutil
from pathlib import Path

import click

from keras_psr.inference.upscaler import load_keras


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(exists=False, path_type=Path))
@click.option("--share", required=True, type=click.FloatRange(0, 1), help="Share of the run's own weights.")
def main(run: Path, out: Path, share: float) -> None:
    """Writes RUN, mixed with the model that it started from, to OUT."""
    record = json.loads((run / "config.json").read_text(encoding="utf-8"))
    init = record["config"].get("init")
    if not init:
        raise click.UsageError(f"RUN must be a fit with --init. Received: {run}.")
    network, start = load_keras(run).network, load_keras(init).network
    if [weights.shape for weights in network.get_weights()] != [weights.shape for weights in start.get_weights()]:
        raise click.UsageError(f"RUN must have the layers of {init}, from which it started. Received: {run}.")
    pairs = zip(network.get_weights(), start.get_weights(), strict=True)
    network.set_weights([share * own + (1 - share) * before for own, before in pairs])
    out.mkdir(parents=True)
    shutil.copy(run / "log.jsonl", out)
    (out / "config.json").write_text(json.dumps(record | {"share": share}, indent=2) + "\n", encoding="utf-8")
    network.save(out / "model.keras")


if __name__ == "__main__":
    main()
