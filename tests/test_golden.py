"""Values that were right once stay so; `tests/golden/regenerate.py` made them."""

import json
import runpy
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(GOLDEN / "regenerate.py"))


@pytest.mark.parametrize("name", ["vgg_responses", "bicubic_scores"])
def test_golden_values(name, script):
    expected, received = json.loads((GOLDEN / f"{name}.json").read_text()), script[name]()
    assert received.keys() == expected.keys()
    for item, numbers in expected.items():
        for key, value in numbers.items():
            assert received[item][key] == pytest.approx(value, rel=1e-4), (item, key)
