"""Measures the loss that a style network reaches, compared with the photograph and with optimised pixels."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_psr.constants import STYLE_GRID, STYLE_TRANSFER
from keras_psr.data.sources import OnPicture, Picture, open_sources, use_pictures
from keras_psr.errors import ConfigError
from keras_psr.images.metrics import chroma_noise, lattice_ratio, mean_scores
from keras_psr.images.pixels import crop_center, resize_bicubic, to_uint8
from keras_psr.inference.flicker import flicker_ratio
from keras_psr.inference.upscaler import Upscaler
from keras_psr.losses.perceptual import PerceptualLoss
from keras_psr.tasks.style_transfer.optimization import optimize, white_noise

BASELINE_ITERATIONS = (50, 100, 300, 500)
"""Iterations after which the optimised picture is scored (Johnson et al. 2016, figure 5 and table 1)."""


def evaluate_style(
    stylizer: Upscaler,
    loss: PerceptualLoss,
    data: Sequence[str],
    *,
    painting: np.ndarray,
    size: int = 256,
    iterations: int = 0,
    on_step: OnPicture = lambda name, done, total: None,
) -> dict[str, Any]:
    """Measures the loss of painted photographs, of the photographs themselves, and of optimised ones.

    Args:
        stylizer: The network.
        loss: The loss by which pictures are compared (`task.build_objective`).
        data: Sources of photographs (`sources.open_sources`).
        painting: The painting in the size of the fit, uint8 RGB (`task.read_painting`).
        size: Side of the squares to which the middle of each photograph is reduced, in pixels.
        iterations: Iterations of L-BFGS from white noise, scored after `BASELINE_ITERATIONS`; 0 for none.
        on_step: Called before each picture, and before each iteration, which the name then includes.

    Returns:
        A dictionary for JSON: `task`; `weights` of the terms; `size`; `skipped`; `pictures`, a list of {`name`,
        `scores`, `objectives`}; `summary`; and `iterations_to_match`. `scores` maps `photograph`, `model` and names
        such as `L-BFGS 50` to scores: `loss`, the weighted sum; each term; `chroma_noise`; `lattice_ratio` with a
        period of `STYLE_GRID` (NaN below 56 pixels); except for the photograph, `seconds`; and for the network,
        `flicker` and `flicker_moving` (`flicker.flicker_ratio` with a speed of 0 and 1). `summary` has their means, for
        `lattice_ratio` the median, and `chroma_noise` and `lattice_ratio` of the `painting`. `objectives` has the loss
        after each iteration of L-BFGS, and `iterations_to_match` the number of iterations after which their mean is no
        larger than the network's; None if it stays larger.

    Raises:
        DataError: No picture can be used.

    Example:
        objective, painting = build_objective(config), read_painting(config)
        result = evaluate_style(load("runs/starry-night"), objective, ["photos/"], painting=painting)
    """
    pictures = open_sources(data)

    def measure(picture: Picture) -> dict[str, Any]:
        photograph = square(picture.read(), size)
        stylizer(photograph)  # the first run is slower, and is not timed
        start = time.perf_counter()
        painted = stylizer(photograph)
        seconds = time.perf_counter() - start
        scores = {
            "photograph": _score(photograph, photograph, loss),
            "model": {
                **_score(painted, photograph, loss),
                "flicker": flicker_ratio(stylizer, photograph),
                "flicker_moving": flicker_ratio(stylizer, photograph, speed=1),
                "seconds": seconds,
            },
        }
        objectives: list[float] = []
        if iterations:
            done = pictures.index(picture)

            def say(iteration: int) -> None:
                on_step(f"{picture.name}, iteration {iteration}", done, len(pictures))

            baseline, objectives = measure_baseline(photograph, loss, iterations, say)
            scores |= baseline
        return {"name": picture.name, "scores": scores, "objectives": objectives}

    refusal = "None of the {number} pictures can be scored."
    rows, skipped = use_pictures(pictures, measure, refusal=refusal, on_picture=on_step)
    means = {method: mean_scores([row["scores"][method] for row in rows]) for method in rows[0]["scores"]}
    summary = {"photograph": means.pop("photograph"), "painting": _score_surface(painting), **means}
    shortest = min(len(row["objectives"]) for row in rows)  # L-BFGS ends early if no step makes the loss smaller
    objectives = np.mean([row["objectives"][:shortest] for row in rows], axis=0)
    reached = np.flatnonzero(objectives <= summary["model"]["loss"])
    return {
        "task": STYLE_TRANSFER,
        "weights": loss.weights,
        "size": size,
        "skipped": [{"name": name, "reason": reason} for name, reason in skipped],
        "pictures": rows,
        "summary": summary,
        "iterations_to_match": int(reached[0]) + 1 if reached.size else None,
    }


def _score(image: np.ndarray, photograph: np.ndarray, loss: PerceptualLoss) -> dict[str, float]:
    """Returns the loss and its terms for a uint8 RGB picture, and the scores of the picture by itself."""
    return {**loss.measure(image, photograph), **_score_surface(image)}


def _score_surface(image: np.ndarray) -> dict[str, float]:
    """Returns the chroma noise of a uint8 RGB picture, and its lattice ratio with the period of style networks."""
    return {"chroma_noise": chroma_noise(image), "lattice_ratio": lattice_ratio(image, STYLE_GRID)}


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the largest square in the middle of a uint8 picture, reduced to (size, size, 3).

    Raises:
        ConfigError: The picture is smaller than that.
    """
    shorter = min(image.shape[:2])
    if shorter < size:
        raise ConfigError(f"{image.shape[1]}x{image.shape[0]} is smaller than {size}x{size}")
    return resize_bicubic(crop_center(image, shorter), size, size)


def measure_baseline(
    photograph: np.ndarray, loss: PerceptualLoss, iterations: int, on_iteration: Callable[[int], None]
) -> tuple[dict[str, dict[str, float]], list[float]]:
    """Returns the scores after each of `BASELINE_ITERATIONS`, by name, and the loss after each iteration."""
    scores: dict[str, dict[str, float]] = {}
    objectives: list[float] = []
    start = time.perf_counter()

    def note(iteration: int, objective: float, image: np.ndarray) -> None:
        nonlocal start
        on_iteration(iteration)
        objectives.append(objective)
        if iteration in BASELINE_ITERATIONS:
            elapsed = time.perf_counter() - start
            scores[f"L-BFGS {iteration}"] = {**_score(to_uint8(image), photograph, loss), "seconds": elapsed}
            start = time.perf_counter() - elapsed  # leaves out the time for the scores

    optimize(photograph, loss, iterations, start=white_noise(photograph.shape), on_iteration=note)
    return scores, objectives
