"""Writes a photo and what Python makes of it into a folder, as raw bytes: python reference.py FOLDER."""

import sys
from pathlib import Path

import skimage.data

import keras_psr
from keras_psr.images.pixels import resize_bicubic

folder = Path(sys.argv[1])
photo = skimage.data.coffee()[60:161, 150:410]
height, width = photo.shape[:2]
photo.tofile(folder / f"photo_{width}x{height}")
resize_bicubic(photo, 2 * height, 2 * width).tofile(folder / "bicubic")
keras_psr.load("x2-fast_int8", device="cpu")(photo).tofile(folder / "x2-fast_int8")
