"""The tasks by name."""

from typing import Any

from keras_psr.constants import STYLE_TRANSFER, SUPER_RESOLUTION
from keras_psr.tasks.style_transfer import task as style_transfer
from keras_psr.tasks.super_resolution import task as super_resolution
from keras_psr.tasks.task import Task

TASKS: dict[str, Task[Any]] = {SUPER_RESOLUTION: super_resolution, STYLE_TRANSFER: style_transfer}
