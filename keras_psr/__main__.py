"""`python -m keras_psr` does what `keras-psr` does."""

from keras_psr.cli.main import main

main(prog_name="keras-psr")
