"""Imports stay light, and point downward in ARCHITECTURE.md's table."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_psr
from keras_psr.cli.main import COMMANDS

CHECKOUT = Path(__file__).parents[1]
FOLDERS = ("keras_psr", "cli", "export")
OUTERMOST = {CHECKOUT / "keras_psr" / name for name in ("__init__.py", "__main__.py")}
INIT_FILES = {path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("__init__.py")} - OUTERMOST
MODULES = sorted({path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*.py")} - OUTERMOST - INIT_FILES)


def read_layers():
    """Row of each module in ARCHITECTURE.md: {"errors": 0, "images.pixels": 3, "cli": 50, ...}."""
    rows = re.findall(r"^\| \d+ \| (.*?) \|", (CHECKOUT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    cells = [re.findall(r"`([\w/]+(?:\.py|/))`", cell) for cell in rows]
    return {name_in_package(Path(name)): row for row, names in enumerate(cells) for name in names}


def name_in_package(path):
    """`images.pixels` for keras_psr/images/pixels.py or images/pixels.py."""
    return ".".join(path.with_suffix("").parts).removeprefix("keras_psr.")


LAYERS = read_layers()


def find_part(name):
    """The name that the table has for a module or what it defines: `cli` for each command's module."""
    parts = name.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in LAYERS), name)


def find_imported_parts(tree):
    """The part of keras_psr that each import names, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package = name.split(".")[0]
            assert package not in ("cli", "export"), f"line {node.lineno}: import keras_psr.{name}"
            if package == "keras_psr" and "." in name and name != "keras_psr.__version__":
                yield find_part(name.removeprefix("keras_psr."))


def test_the_table_is_found():
    assert LAYERS["errors"] == LAYERS["constants"] == 0
    assert 0 < LAYERS["images.metrics"] < LAYERS["training.fit"] < LAYERS["export.tflite"] < LAYERS["cli"]


def test_only_commands_share_a_row_of_the_table():
    """All other modules have a name in it, so the direction of imports inside their folders is checked too."""
    unnamed = {path.stem for path in MODULES if name_in_package(path.relative_to(CHECKOUT)) not in LAYERS}
    assert unnamed == {*COMMANDS, "main"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_imports_point_downward(path):
    importer = find_part(name_in_package(path.relative_to(CHECKOUT)))
    assert importer in LAYERS, f"{importer} has no line in ARCHITECTURE.md's table"
    for imported in find_imported_parts(ast.parse(path.read_text())):
        assert imported in LAYERS, f"{imported}: import a name from the module that defines it"
        assert LAYERS[imported] <= LAYERS[importer], f"{importer} imports {imported}, which stands below it"


@pytest.mark.parametrize("path", sorted(INIT_FILES), ids=lambda path: path.parent.name)
def test_packages_themselves_import_nothing(path):
    body = ast.parse(path.read_text()).body
    assert all(isinstance(node, ast.Expr) for node in body), "only a docstring"


def run_and_list_modules(code, folder):
    code = f"{code}\nimport sys; print('modules:', *sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return set(result.stdout.split("modules:")[1].split())


def test_importing_the_package_is_light(tmp_path):
    modules = run_and_list_modules("import keras_psr", tmp_path)
    assert "keras_psr" in modules
    assert not modules & {"tensorflow", "keras", "numpy", "PIL"}


def test_help_is_light(tmp_path):
    code = "from keras_psr.cli.main import main; main(['--help'], standalone_mode=False)"
    modules = run_and_list_modules(code, tmp_path)
    assert "keras_psr.cli.main" in modules
    assert not modules & {"tensorflow", "keras", "numpy", "PIL"}


def test_help_of_each_command_is_light(tmp_path):
    names = [path.stem for path in (CHECKOUT / "cli").glob("*.py") if path.stem != "__init__"]
    modules = run_and_list_modules("\n".join(f"import keras_psr.cli.{name}" for name in names), tmp_path)
    assert "keras_psr.cli.main" in modules
    assert not modules & {"tensorflow", "keras"}


@pytest.mark.parametrize("name", keras_psr.__all__)
def test_public_names_resolve(name):
    assert name in dir(keras_psr)
    assert callable(getattr(keras_psr, name))


def test_dir_shows_what_is_public():
    assert dir(keras_psr) == sorted([*keras_psr.__all__, "__version__"])


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'upscael'"):
        _ = keras_psr.upscael
