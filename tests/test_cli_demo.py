"""`keras-psr demo`: what it writes, lists and serves. web/test/ tests the page itself, in a browser."""

import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_psr.cli import demo
from keras_psr.cli.main import main
from keras_psr.inference.tflite_metadata import with_metadata

FACTS = {"name": "x4", "task": "super-resolution", "variant": "int8", "scale": 4, "tile": 128, "halo": 16}


@pytest.fixture
def page(monkeypatch, tmp_path):
    """An installation that has a page, of one file."""
    package = tmp_path / "keras_psr"
    (package / "page" / "litert").mkdir(parents=True)
    (package / "page" / "index.html").write_text("<title>keras-psr</title>")
    (package / "page" / "litert" / "a.wasm").write_bytes(b"\0asm")
    (package / "page" / "styles").mkdir()
    (package / "page" / "styles" / "starry-night.jpg").write_bytes(b"\xff\xd8")
    monkeypatch.setattr(demo, "files", lambda name: package)
    return package / "page"


@pytest.fixture
def own(tmp_path, empty_tflite):
    """A folder of a user's own .tflite files, and the function that writes another."""
    folder = tmp_path / "own"
    folder.mkdir()

    def write(**facts):
        facts = FACTS | facts
        path = folder / f"{facts['name']}_{facts['variant']}.tflite"
        path.write_bytes(with_metadata(empty_tflite, facts))
        return path

    return folder, write


@pytest.mark.usefixtures("page")
def test_a_site_holds_the_page_and_the_shipped_models(runner, tmp_path):
    from keras_psr.inference.registry import shipped_folder

    result = runner.invoke(main, ["demo", "--out", str(tmp_path / "site")])
    assert result.exit_code == 0, result.stderr
    site = tmp_path / "site"
    assert (site / "litert" / "a.wasm").read_bytes() == b"\0asm"
    document = json.loads((site / "models.json").read_text())
    assert (document["default"], document["lossy"]) == ("x4", "x4-photo")
    shipped = {path.name for path in shipped_folder().glob("*/*.tflite")}
    listed = {file["url"].removeprefix("models/") for model in document["models"] for file in model["files"]}
    assert listed == shipped == {path.name for path in (site / "models").iterdir()}
    (x4,) = (model for model in document["models"] if model["name"] == "x4")
    assert (x4["task"], x4["scale"]) == ("super-resolution", 4)
    assert [file["variant"] for file in x4["files"]] == ["int8", "float16", "float32"]
    assert {model["name"]: model.get("picture") for model in document["models"] if "picture" in model} == {
        "starry-night": "styles/starry-night.jpg"
    }
    assert x4["files"][0]["bytes"] == (shipped_folder() / "x4" / "x4_int8.tflite").stat().st_size


@pytest.mark.usefixtures("page")
def test_the_headers_are_written_for_web_hosts(runner, tmp_path):
    runner.invoke(main, ["demo", "--out", str(tmp_path / "site")])
    first, *lines = (tmp_path / "site" / "_headers").read_text().splitlines()
    assert first == "/*"
    assert dict(line.strip().split(": ", 1) for line in lines) == demo.HEADERS


def test_the_page_has_the_same_policy_where_a_host_sends_no_headers():
    html = (Path(__file__).parents[1] / "web" / "page" / "index.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy"\s+content="([^"]+)"', html)
    assert demo.HEADERS["Content-Security-Policy"] == f"{policy}; frame-ancestors 'none'"  # headers only have the last


@pytest.mark.usefixtures("page")
def test_own_models_are_shown_instead(runner, tmp_path, own):
    folder, write = own
    write(name="starry-night", task="style transfer", variant="float32", scale=1)
    write(variant="float32"), write()
    result = runner.invoke(main, ["demo", "--model", str(folder), "--out", str(tmp_path / "site")])
    assert result.exit_code == 0, result.stderr
    models = {model["name"]: model for model in json.loads((tmp_path / "site" / "models.json").read_text())["models"]}
    assert set(models) == {"x4", "starry-night"}
    assert "lossy" not in json.loads((tmp_path / "site" / "models.json").read_text())
    assert [file["variant"] for file in models["x4"]["files"]] == ["int8", "float32"]
    assert models["starry-night"]["scale"] == 1
    assert "picture" not in models["starry-night"]  # which shows what the shipped one makes


@pytest.mark.usefixtures("page")
def test_one_own_file_is_shown_alone(runner, tmp_path, own):
    path = own[1](name="mine")
    result = runner.invoke(main, ["demo", "--model", str(path), "--out", str(tmp_path / "site")])
    assert result.exit_code == 0, result.stderr
    (model,) = json.loads((tmp_path / "site" / "models.json").read_text())["models"]
    assert model["files"] == [{"variant": "int8", "url": "models/mine_int8.tflite", "bytes": path.stat().st_size}]


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize("missing", ["tile", "halo", "name", "task"])
def test_a_file_that_does_not_say_how_to_tile_is_refused(runner, tmp_path, own, missing):
    path = own[1](**{"name": "mine", missing: None})
    result = runner.invoke(main, ["demo", "--model", str(path), "--out", str(tmp_path / "site")])
    assert result.exit_code == 1
    assert f"does not state its {missing}. Export it again" in result.stderr
    assert not (tmp_path / "site").exists()


@pytest.mark.usefixtures("page")
def test_an_unknown_model_is_one_line(runner, tmp_path):
    result = runner.invoke(main, ["demo", "--model", "x5", "--out", str(tmp_path / "site")])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: No model 'x5': expected a .tflite file, a folder of them, or a shipped")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("page")
def test_a_damaged_shipped_file_is_not_offered(runner, tmp_path, monkeypatch):
    from keras_psr.inference.registry import shipped_folder

    shutil.copytree(shipped_folder() / "x4", tmp_path / "shipped" / "x4")
    path = tmp_path / "shipped" / "x4" / "x4_int8.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    monkeypatch.setattr("keras_psr.inference.registry.shipped_folder", lambda: tmp_path / "shipped")
    result = runner.invoke(main, ["demo", "--out", str(tmp_path / "site")])
    assert result.exit_code == 1 and "is damaged" in result.stderr


@pytest.fixture
def checkout(tmp_path):
    """A checkout in a folder with a space, and what an installer notes of it."""
    folder = tmp_path / "my checkout"
    (folder / "web").mkdir(parents=True)
    (folder / "web" / "package.json").write_text("{}")
    return folder


def installed_from(monkeypatch, url, **facts):
    """Makes this an installation whose installer noted this origin, as PEP 610 has it."""
    document = json.dumps({"url": url} | facts) if url else None
    noted = SimpleNamespace(read_text=lambda name: {"direct_url.json": document}.get(name))
    monkeypatch.setattr(demo, "distribution", lambda name: noted)


@pytest.mark.parametrize(
    ("facts", "is_built", "cure"),
    [
        ({"editable": True}, False, "Run `make -C '{0}' web`, which needs Node.js 20.19 or newer."),
        ({}, False, "Run `make -C '{0}' web`, which needs Node.js 20.19 or newer, and then `pip install '{0}'` again."),
        ({}, True, "The page was built after it was installed: run `pip install '{0}'` again."),
    ],
)
def test_without_a_page_an_installation_from_a_checkout_is_told_what_to_do_there(
    runner, tmp_path, page, monkeypatch, checkout, facts, is_built, cure
):
    shutil.rmtree(page)
    installed_from(monkeypatch, checkout.as_uri(), dir_info=facts)
    if is_built:
        (checkout / "keras_psr" / "page").mkdir(parents=True)
        (checkout / "keras_psr" / "page" / "index.html").touch()
    result = runner.invoke(main, ["demo", "--out", str(tmp_path / "site")])
    assert result.exit_code == 1
    assert result.stderr == f"Error: This installation has no page. {cure.format(checkout)}\n"
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("url", "facts"),
    [
        ("file:///downloads/keras_psr.whl", {"archive_info": {}}),
        ("https://example.org/keras-psr.git", {"vcs_info": {"vcs": "git", "commit_id": "5d7ef4e"}}),
        ("file:///a/checkout/that/is/gone", {"dir_info": {}}),
        (None, {}),
    ],
)
def test_without_a_page_any_other_installation_is_told_to_take_a_checkout(runner, page, monkeypatch, url, facts):
    shutil.rmtree(page)
    installed_from(monkeypatch, url, **facts)
    result = runner.invoke(main, ["demo", "--port", "0"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: This installation has no page. In a checkout run `make web`, which needs Node.js 20.19 or newer, "
        "and then `pip install --force-reinstall --no-deps .`\n"
    )


@pytest.mark.usefixtures("page")
def test_a_folder_with_files_is_left_alone(runner, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear reader")
    result = runner.invoke(main, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 1 and "is not empty" in result.stderr
    assert not (tmp_path / "index.html").exists()


@pytest.fixture
def served(monkeypatch, page):
    """The address of the page, served to this machine; the server is stopped as Ctrl-C would."""
    servers = []

    class Server(demo.ThreadingHTTPServer):
        def serve_forever(self, poll_interval=0.01):
            servers.append(self)
            super().serve_forever(poll_interval)

    monkeypatch.setattr(demo, "ThreadingHTTPServer", Server)
    lines = []
    monkeypatch.setattr(demo, "say", lines.append)
    thread = threading.Thread(target=demo.serve, args=(page, 0, False))
    thread.start()
    while not servers and thread.is_alive():
        thread.join(0.01)
    (server,) = servers
    yield f"http://127.0.0.1:{server.server_address[1]}", lines, server
    server.shutdown()
    thread.join()


def test_the_page_is_served_with_what_threads_need(served):
    address, (line,), server = served
    assert line == f"http://localhost:{server.server_address[1]} (press Ctrl-C to stop)"
    assert server.server_address[0] == "127.0.0.1"
    with urllib.request.urlopen(address) as answer:
        assert answer.read() == b"<title>keras-psr</title>"
        assert {name: answer.headers[name] for name in demo.HEADERS} == demo.HEADERS
    with urllib.request.urlopen(f"{address}/litert/a.wasm") as answer:
        assert answer.headers["Content-Type"] == "application/wasm"


def test_nothing_outside_the_site_is_served(served):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{served[0]}/../conftest.py")


def test_a_port_in_use_is_one_line(runner, served):
    result = runner.invoke(main, ["demo", "--port", str(served[2].server_address[1])])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: --port {served[2].server_address[1]} cannot be used: ")
    assert "0 for a free one" in result.stderr


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize(("args", "address"), [([], "127.0.0.1"), (["--lan"], "0.0.0.0")])
def test_other_devices_are_let_in_only_on_request(runner, monkeypatch, args, address):
    class Server(demo.ThreadingHTTPServer):
        def serve_forever(self):
            print(self.server_address[0])
            raise KeyboardInterrupt

    monkeypatch.setattr(demo, "ThreadingHTTPServer", Server)
    result = runner.invoke(main, ["demo", "--port", "0", *args])
    assert (result.exit_code, result.stdout) == (0, f"{address}\n")
    assert ("for other devices" in result.stderr) == bool(args)


def test_it_needs_no_tensorflow(tmp_path, page):
    code = f"""
import sys
from pathlib import Path
from keras_psr.cli import demo
demo.files = lambda name: Path({str(page.parent)!r})
demo.write_site(Path("site"), None)
print(*sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (tmp_path / "site" / "models.json").is_file()
    assert not set(result.stdout.split()) & {"tensorflow", "keras"}
