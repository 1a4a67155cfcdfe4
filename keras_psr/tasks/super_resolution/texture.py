"""Texture distance: whether the fur in a set of results looks like fur, wherever each hair lies."""

import numpy as np

from keras_psr.errors import DataError

TEXTURE_TAP = "relu3_3"

PATCH = 8
"""Side of a patch in responses of `TEXTURE_TAP`, which are 4 pixels apart: 32x32 pixels."""

MIN_PATCHES = 2000
"""Number of patches below which the distance is refused: about four for each of the 512 numbers of a patch."""


class PatchStatistics:
    """Mean and covariance of the numbers that describe patches, gathered picture by picture.

    Only sums are kept, so the memory needed (2 MB for 512 numbers) does not grow with the number of pictures.

    Attributes:
        count: Number of patches so far.
        mean: Mean of each number over the patches, (numbers,) float64; 0 before the first patch.
    """

    def __init__(self) -> None:
        """Starts without patches."""
        self.count = 0
        self.mean: np.ndarray = np.zeros(())
        self._scatter: np.ndarray = np.zeros(())

    def add(self, patches: np.ndarray) -> None:
        """Adds the patches of a picture, (patches, numbers), of which there may be none.

        Reference:
            Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances.
        """
        if not len(patches):
            return
        mean, total = patches.mean(axis=0), self.count + len(patches)
        centred, shift = patches - mean, mean - self.mean
        between = np.outer(shift, shift) * (self.count * len(patches) / total)
        self._scatter = self._scatter + centred.T @ centred + between
        self.mean = self.mean + shift * (len(patches) / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Covariance over the patches, (numbers, numbers) float64; needs at least two patches."""
        return self._scatter / (self.count - 1)


def describe_patches(responses: np.ndarray) -> np.ndarray:
    """Returns the mean and the standard deviation of each channel in each patch of 8x8 responses.

    Args:
        responses: VGG16's `TEXTURE_TAP` of a picture, (height, width, channels). Patches begin at the top left;
            responses at the right and bottom that do not fill a patch are left out.

    Returns:
        float64, (patches, 2 x channels): the means, then the standard deviations. There are no patches if a side has
        fewer than 8 responses.
    """
    rows, columns, channels = responses.shape[0] // PATCH, responses.shape[1] // PATCH, responses.shape[2]
    whole = responses[: rows * PATCH, : columns * PATCH]
    patches = whole.reshape(rows, PATCH, columns, PATCH, channels)
    numbers = [patches.mean(axis=(1, 3)), patches.std(axis=(1, 3))]
    return np.concatenate(numbers, axis=-1).reshape(-1, 2 * channels).astype(np.float64)


def texture_distance(results: PatchStatistics, originals: PatchStatistics, *, at_least: int = MIN_PATCHES) -> float:
    """Returns the distance of the textures in a set of results from those in the originals.

    The numbers of each patch (`describe_patches`) are divided by their standard deviation over the originals' patches.
    The Fréchet distance is then taken between all patches of the results and all patches of the originals. Results
    need not be aligned with originals.

    Args:
        results: Statistics of the results' patches.
        originals: The same of the originals.
        at_least: Number of patches that both must have.

    Returns:
        The distance, which has no unit; 0 is best. On BSD100, originals are about 5 from each other (odd patches from
        even ones), and bicubic at x4 is about 240 from them.

    Raises:
        DataError: There are too few patches, or a number is the same in all patches of the originals.

    Reference:
        Heusel et al. 2017, GANs trained by a two time-scale update rule converge to a local Nash equilibrium, which
        takes the distance between pictures and not between patches.
    """
    count = min(results.count, originals.count)
    if count < at_least:
        raise DataError(
            f"The texture distance needs {at_least:,} patches of 32x32 pixels, because fewer do not determine the "
            f"covariance of 512 numbers. Received: {count:,}. Score more or larger pictures."
        )
    spread = np.sqrt(np.diag(originals.covariance))
    constant = int(np.sum(spread <= 1e-6 * np.abs(originals.mean)))  # float32 has no smaller differences
    if constant:
        raise DataError(
            f"The texture distance needs originals whose patches differ. Received: {constant} of {len(spread)} numbers "
            "that are the same in all of them. Score photographs."
        )
    first, second = ((part.mean / spread, part.covariance / np.outer(spread, spread)) for part in (results, originals))
    return frechet_distance(*first, *second)


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """Returns the squared Fréchet distance of two normal distributions, |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    With C1 = A A' and C2 = B B', the eigenvalues of C1 C2 are the squared singular values of A'B. So the trace of the
    root is their sum, which needs no root of a matrix that is not symmetric, and loses no digits to squares.

    Args:
        mean: Of the first distribution, (numbers,).
        covariance: The same, (numbers, numbers). It may be singular.
        other_mean: Of the second distribution.
        other_covariance: The same.

    Returns:
        The distance, 0 or more.

    Reference:
        Dowson and Landau 1982, The Fréchet distance between multivariate normal distributions.
    """
    overlap = np.linalg.svd(_factor(covariance).T @ _factor(other_covariance), compute_uv=False).sum()
    distance = np.sum((mean - other_mean) ** 2) + np.trace(covariance) + np.trace(other_covariance) - 2 * overlap
    return max(0.0, float(distance))  # rounding takes equal distributions below 0


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Returns a matrix A for which A A' is the covariance. Rounding may have left it slightly negative."""
    variances, directions = np.linalg.eigh(covariance)
    return directions * np.sqrt(np.maximum(variances, 0))
