"""The `keras-psr demo` command, which serves or writes a page that runs the models in the browser."""

import json
import shlex
import shutil
import socket
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import click

from keras_psr.cli.model_options import DEFAULT_SCALE
from keras_psr.cli.terminal import say
from keras_psr.constants import STYLE_TRANSFER
from keras_psr.errors import ConfigError, ModelError

HEADERS = {
    # Together, these two allow the page to use threads, which WebAssembly needs to use all cores.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""HTTP headers sent with every file. `--out` writes them to `_headers`, which several web hosts read."""

TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".tflite": "application/octet-stream"}
SMALLEST_FIRST = ("int8", "dynamic", "float16", "float32")
"""Order in which the page offers a model's files; other variants follow."""


@click.command()
@click.option(
    "--model",
    metavar="MODEL",
    help="The shipped model to select first; or a .tflite file of your own, or a folder of them, to show instead.  "
    "[default: the one that keras-psr upscale takes]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to serve on; 0 for any free port.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a static site to this new folder instead of serving it.",
)
@click.option("--lan", is_flag=True, help="Serve the page to other devices in the network too.")
def demo(model: str | None, port: int, out: Path | None, lan: bool) -> None:
    """Show the models in the browser. The page runs them on the device itself, and uploads nothing.

    --out writes the page, with all shipped models, for any web host; docs/deploy.md lists the headers to send. Over
    plain HTTP, browsers allow threads, the GPU and offline use on localhost only. Other devices are therefore slower
    with --lan than with a web host that has HTTPS.

    \b
    Examples:
      keras-psr demo
      keras-psr demo --model phone/ --port 9000
      keras-psr demo --out site/
    """  # noqa: D301 - \b is click's sign for a paragraph that it must not wrap
    if out:
        if out.is_dir() and any(out.iterdir()):
            raise ConfigError(f"--out {out} is not empty. Give a new folder.")
        write_site(out, model)
        say(f"Wrote {out}: put the folder on a web host with HTTPS.")
        return
    with TemporaryDirectory() as folder:
        write_site(Path(folder), model)
        serve(Path(folder), port, lan)


def write_site(folder: Path, model: str | None) -> None:
    """Writes the page, the models and `models.json`, which lists them.

    Args:
        folder: Folder to write to; created if missing.
        model: The shipped model to select first, or a `.tflite` file or a folder of them to offer instead.

    Raises:
        ConfigError: This installation does not include the page.
        ModelError: There is no such model, or it is damaged.
    """
    page = Path(str(files("keras_psr"))) / "page"
    if not (page / "index.html").is_file():
        raise ConfigError(f"This installation has no page. {how_to_get_the_page()}")
    models: dict[str, dict[str, Any]] = {}
    is_own = model is not None and Path(model).exists()
    for path, metadata in find_files(model):
        entry = {key: metadata[key] for key in ("name", "task", "scale")} | {"files": []}
        picture = f"styles/{metadata['name']}.jpg"  # an example of a shipped style
        if not is_own and (page / picture).is_file():
            entry["picture"] = picture
        file = {"variant": metadata["variant"], "url": f"models/{path.name}", "bytes": path.stat().st_size}
        models.setdefault(metadata["name"], entry)["files"].append(file)
        (folder / "models").mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / "models")
    shutil.copytree(page, folder, dirs_exist_ok=True)
    defaults = {"default": model} if model else choose_defaults()
    paints = any(entry["task"] == STYLE_TRANSFER for entry in models.values())
    enlargers = copy_enlargers(folder) if paints else {}
    document = {**defaults, "models": list(models.values()), "enlargers": enlargers}
    (folder / "models.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
    lines = ["/*", *(f"  {name}: {value}" for name, value in HEADERS.items())]
    (folder / "_headers").write_text("\n".join(lines) + "\n", encoding="utf-8")


def choose_defaults() -> dict[str, str]:
    """Returns the models that the page selects first, as `keras-psr upscale` does: for clean and for lossy files."""
    from keras_psr.inference.registry import default_model

    return {"default": default_model(DEFAULT_SCALE), "lossy": default_model(DEFAULT_SCALE, for_artefacts=True)}


def copy_enlargers(folder: Path) -> dict[str, dict[int, str]]:
    """Copies the files that enlarge paintings to a site; returns their addresses by variant and scale."""
    from keras_psr.inference.painting import ENLARGERS
    from keras_psr.inference.registry import find_runnable

    addresses: dict[str, dict[int, str]] = {"float32": {}, "int8": {}}
    for variant, by_scale in addresses.items():
        for scale, name in ENLARGERS.items():
            path = find_runnable(f"{name}_{variant}")
            shutil.copy2(path, folder / "models")
            by_scale[scale] = f"models/{path.name}"
    return addresses


def how_to_get_the_page() -> str:
    """Returns how to add the page to this installation, whose origin is in its `direct_url.json` (PEP 610)."""
    try:
        origin = json.loads(distribution("keras-psr").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    checkout = Path(url2pathname(urlsplit(origin.get("url", "")).path)) if "dir_info" in origin else None
    needs = "which needs Node.js 20.19 or newer"
    if not checkout or not (checkout / "web" / "package.json").is_file():
        return f"In a checkout run `make web`, {needs}, and then `pip install --force-reinstall --no-deps .`"
    place = shlex.quote(str(checkout))
    if origin["dir_info"].get("editable"):
        return f"Run `make -C {place} web`, {needs}."
    if (checkout / "keras_psr" / "page" / "index.html").is_file():
        return f"The page was built after it was installed: run `pip install {place}` again."
    return f"Run `make -C {place} web`, {needs}, and then `pip install {place}` again."


def find_files(model: str | None) -> list[tuple[Path, dict[str, Any]]]:
    """Finds the `.tflite` files to offer, with their metadata: the user's own, or all shipped ones.

    Raises:
        ModelError: There is no such file or model, or it is damaged or has no fixed tile.
    """
    from keras_psr.inference.registry import find_runnable, shipped_folder, shipped_models
    from keras_psr.inference.tflite_metadata import read_metadata

    if model and Path(model).is_file():
        paths = [Path(model)]
    elif model and Path(model).is_dir():
        paths = sorted(Path(model).glob("*.tflite"))
    elif model and model not in shipped_models():
        raise ModelError(
            f"No model {model!r}: expected a .tflite file, a folder of them, or a shipped model "
            f"({', '.join(shipped_models()) or 'none'})."
        )
    else:
        paths = [find_runnable(path.stem) for path in sorted(shipped_folder().glob("*/*.tflite"))]
    if not paths:
        raise ModelError(f"No .tflite file in {model or 'this installation'}. Make some: keras-psr export --tflite")
    found = [(path, read_metadata(path)) for path in paths]
    for path, metadata in found:
        missing = [key for key in ("name", "task", "variant", "scale", "tile", "halo") if metadata.get(key) is None]
        if missing:
            raise ModelError(
                f"{path} does not state its {', '.join(missing)}. Export it again, without --dynamic-shape."
            )
    return sorted(found, key=lambda pair: [*SMALLEST_FIRST, pair[1]["variant"]].index(pair[1]["variant"]))


def serve(folder: Path, port: int, lan: bool) -> None:
    """Serves a folder until Ctrl-C.

    Args:
        folder: Folder that `write_site` wrote.
        port: Port to listen on; 0 for any free port.
        lan: Whether to serve other devices too.

    Raises:
        ConfigError: The port cannot be used.
    """
    try:
        server = ThreadingHTTPServer(("" if lan else "127.0.0.1", port), partial(Handler, directory=str(folder)))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"--port {port} cannot be used: {reason}. Give another port, or 0 for a free one.") from error
    with server:
        port = server.server_address[1]
        others = f", for other devices http://{socket.gethostname()}:{port} or this machine's address" if lan else ""
        say(f"http://localhost:{port}{others} (press Ctrl-C to stop)")
        with suppress(KeyboardInterrupt):
            server.serve_forever()


class Handler(SimpleHTTPRequestHandler):
    """Serves files with `HEADERS`."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def end_headers(self) -> None:
        """Adds `HEADERS` to every response."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Suppresses the log of single requests."""
