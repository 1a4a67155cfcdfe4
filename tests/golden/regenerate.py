"""Writes the golden values next to this file: run `python tests/golden/regenerate.py` and read the difference.

They guard what independent computations in the tests do not reach cheaply: the deep responses of VGG16 and the scores
of bicubic enlargement on photographs. The photographs come with scikit-image; everything is float32 on a CPU.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data

from keras_psr.images.pixels import crop_to_multiple, make_low_res
from keras_psr.losses.vgg import build_vgg
from keras_psr.tasks.super_resolution.evaluation import LPIPS_TAPS, interpolations, score_picture

FOLDER = Path(__file__).parent
PICTURES = ("astronaut", "chelsea", "coffee")
SCALE = 4


def vgg_responses() -> dict[str, dict[str, Any]]:
    """Shape, mean, standard deviation and the first channels' largest values of responses to part of a photograph."""
    vgg = build_vgg(LPIPS_TAPS)
    crop = skimage.data.astronaut()[:64, 180:244].astype(np.float32)
    responses = {tap: np.asarray(response[0], np.float64) for tap, response in vgg(crop[None]).items()}
    return {
        tap: {
            "shape": list(response.shape),
            "mean": response.mean(),
            "std": response.std(),
            "largest": response.max(axis=(0, 1))[:5].tolist(),
        }
        for tap, response in responses.items()
    }


def bicubic_scores() -> dict[str, dict[str, float]]:
    """Scores of the middle 128x128 pixels of photographs, reduced and enlarged again by `SCALE`."""
    vgg = build_vgg(LPIPS_TAPS)
    scores = {}
    for name in PICTURES:
        whole = getattr(skimage.data, name)()
        top, left = (side // 2 - 64 for side in whole.shape[:2])
        original = crop_to_multiple(whole[top : top + 128, left : left + 128], SCALE)
        enlarged = interpolations(SCALE)["bicubic"](make_low_res(original, SCALE))
        scores[name] = score_picture(enlarged, original, SCALE, vgg)
    return scores


if __name__ == "__main__":
    for name, make in {"vgg_responses": vgg_responses, "bicubic_scores": bicubic_scores}.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(make(), indent=2) + "\n", encoding="utf-8")
