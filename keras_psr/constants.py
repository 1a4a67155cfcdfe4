"""Constants that several modules share, each with its source."""

SUPER_RESOLUTION = "super-resolution"
STYLE_TRANSFER = "style transfer"
"""Names of the tasks, in settings, reports, cards and the metadata of `.tflite` files."""

SCALES = (2, 4, 8)
"""Upscaling factors, one stride-2 transposed convolution for each factor of two (Johnson et al. 2016, section 3.1)."""

LUMA_WEIGHTS = (65.481, 128.553, 24.966)
"""Weights of R, G and B in [0, 1] in BT.601 studio-range luma, to which `LUMA_OFFSET` is added (MATLAB `rgb2ycbcr`)."""

CHROMA_WEIGHTS = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Weights of R, G and B in full-range Cb and Cr (ITU-T T.871, JFIF), to which 128 is added."""

LUMA_OFFSET = 16.0
"""Black level of BT.601 studio-range luma."""

DEGRADATIONS = ("bicubic", "photo")
"""Ways to make low-resolution pictures: `pixels.make_low_res` and `degradation.degrade`."""

STYLE_GRID = 4
"""Pixels per cell of the coarsest grid of style networks: two strides of 2 (Johnson et al. 2016, table 1)."""

DISCRIMINATOR_GRID = 8
"""Pixels per cell of the coarsest grid of the discriminator of pictures: a Haar transform and two poolings."""

MOST_MOTION = 4
"""Most pixels by which the second of the two frames that a fit compares is moved (`training.second_frame`).

It is one cell of the grid, so that all positions in a cell occur.
"""

FRAME_NOISE = 5.0
"""Standard deviation of the second frame's noise, in grey levels, about that of a phone's film indoors."""

STYLE_NORMALIZATIONS = ("energy", "paper", "mean")
"""Ways to normalise the difference of two Gram matrices (`functional.gram_error`)."""

PAINT_SIZE = 512
"""Shorter side at which pictures are painted, in pixels: our own choice (docs/styles.md).

At 288, to which fits reduce photographs, strokes are broad but faces are lost; from 768 on, strokes become a pattern.
"""
