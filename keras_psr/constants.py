"""Numbers and names that several modules share, each with its source."""

SUPER_RESOLUTION = "super-resolution"
STYLE_TRANSFER = "style transfer"
"""Names of the tasks, in settings, reports, cards and the metadata of `.tflite` files."""

SCALES = (2, 4, 8)
"""Upscaling factors: powers of two, one stride-2 transposed convolution each (Johnson et al. 2016, section 3.1)."""

LUMA_WEIGHTS = (65.481, 128.553, 24.966)
"""BT.601 studio-range luma of RGB in [0, 1], plus `LUMA_OFFSET` (MATLAB `rgb2ycbcr`)."""

LUMA_OFFSET = 16.0
"""Black level of BT.601 studio-range luma."""

DEGRADATIONS = ("bicubic", "photo")
"""How low-resolution pictures are made: `pixels.make_low_res`, or `degradation.degrade`."""

STYLE_GRID = 4
"""Pixels for one of the coarsest grid of style networks, which have two strides of 2 (Johnson et al. 2016, table 1)."""

STYLE_NORMALIZATIONS = ("energy", "paper", "mean")
"""Ways to weigh a difference of Gram matrices (`functional.gram_error`)."""
