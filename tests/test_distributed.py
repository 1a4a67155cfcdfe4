"""The work of `upscale` and `stylize` in parts, as engines for clusters give it to their workers."""

import shutil
import time

import fsspec
import psutil
import pyarrow
import pyarrow.parquet
import pytest
import skimage.data
from PIL import Image

from keras_psr.cli.main import main
from keras_psr.distributed import MANIFEST, PICTURES, PictureWorker, find_pictures
from keras_psr.errors import ConfigError, DataError, ModelError

COMMAND = "upscale --model x4-fast_int8 --threads 1"


@pytest.fixture
def photos(photograph, tmp_path):
    """A folder with equal names in two folders, one name with two endings, a broken file and a hidden one."""
    folder = tmp_path / "photos"
    for place in ("a", "a/b", ".hidden"):
        (folder / place).mkdir(parents=True)
        shutil.copy(photograph, folder / place / "one.png")
    Image.open(photograph).rotate(90, expand=True).save(folder / "a" / "one.jpg")
    (folder / "a" / "broken.png").write_bytes(b"not a picture")
    (folder / "a" / "notes.txt").write_text("no picture at all")
    return folder


def read_files(folder):
    """The content of every file below a folder, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_by_name(table, folder):
    return {row["input"].removeprefix(f"{folder}/"): row for row in table.to_pylist()}


def test_pictures_are_listed_with_those_whose_results_would_have_their_name(photos):
    table = find_pictures(str(photos))
    assert table.schema == PICTURES
    namesakes = {name: row["namesake"] for name, row in rows_by_name(table, photos).items()}
    assert namesakes == {
        "a/b/one.png": None,
        "a/broken.png": None,
        "a/one.jpg": None,
        "a/one.png": f"{photos}/a/one.jpg",
    }


@pytest.mark.parametrize("part", [1, 10])
def test_files_and_refusals_are_those_of_the_command_however_the_pictures_are_divided(runner, photos, tmp_path, part):
    arguments = [*COMMAND.split(), str(photos), "-o", str(tmp_path / "expected")]
    assert runner.invoke(main, arguments).exit_code == 1
    pictures, worker = find_pictures(str(photos)), PictureWorker(COMMAND, str(photos), str(tmp_path / "out"))
    parts = [worker(pictures.slice(start, part)) for start in range(0, len(pictures), part)]
    assert all(table.schema == MANIFEST for table in parts)
    rows = rows_by_name(pyarrow.concat_tables(parts), photos)
    assert read_files(tmp_path / "out") == read_files(tmp_path / "expected")
    assert set(read_files(tmp_path / "out")) == {"a/one_x4.png", "a/b/one_x4.png"}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a/b/one.png": "written",
        "a/broken.png": "failed",
        "a/one.jpg": "written",
        "a/one.png": "failed",
    }
    assert (rows["a/one.jpg"]["width"], rows["a/one.jpg"]["height"]) == (256, 384)
    assert rows["a/one.jpg"]["output"] == f"{tmp_path}/out/a/one_x4.png"
    assert rows["a/one.jpg"]["model"] == "x4-fast_int8" and rows["a/one.jpg"]["seconds"] > 0
    assert f"{photos}/a/broken.png is not a picture" in rows["a/broken.png"]["error"]
    assert f"is already written for {photos}/a/one.jpg" in rows["a/one.png"]["error"]


def test_existing_results_are_kept_and_have_their_size_in_the_manifest(photos, tmp_path):
    worker, pictures = PictureWorker(COMMAND, str(photos), str(tmp_path / "out")), find_pictures(str(photos))
    worker(pictures)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    row = rows_by_name(worker(pictures), photos)["a/one.jpg"]
    assert (row["status"], row["width"], row["height"], row["error"]) == ("skipped", 256, 384, None)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")} == before


def test_results_of_keras_psr_are_not_enlarged_again(photos):
    worker = PictureWorker(COMMAND, str(photos), str(photos))
    worker(find_pictures(str(photos)))
    (photos / "a/one_x4.png").rename(photos / "a/renamed.png")
    rows = rows_by_name(worker(find_pictures(str(photos))), photos)
    for name in ("a/renamed.png", "a/b/one_x4.png"):
        assert (rows[name]["status"], rows[name]["output"]) == ("skipped", None)
        assert rows[name]["notes"] == ["it is a result of keras-psr"]


def test_pictures_in_a_store_get_the_files_that_local_ones_get(photos, tmp_path):
    store = fsspec.filesystem("memory")
    store.rm("/", recursive=True)
    store.put(str(photos), "/bucket/photos", recursive=True)
    source, output = "memory://bucket/photos", "memory://bucket/out"
    PictureWorker(COMMAND, str(photos), str(tmp_path / "out"))(find_pictures(str(photos)))
    pictures = find_pictures(source)
    assert set(rows_by_name(pictures, source)) == {"a/b/one.png", "a/broken.png", "a/one.jpg", "a/one.png"}
    store.rm("/bucket/photos/a/b/one.png")  # after it was listed
    worker = PictureWorker(COMMAND, source, output)
    rows = rows_by_name(worker(pictures), source)
    assert {name: row["status"] for name, row in rows.items()} == {
        "a/b/one.png": "failed",
        "a/broken.png": "failed",
        "a/one.jpg": "written",
        "a/one.png": "failed",
    }
    assert rows["a/b/one.png"]["error"].startswith(f"{source}/a/b/one.png: FileNotFoundError")
    assert rows["a/broken.png"]["error"].startswith(f"{source}/a/broken.png is not a picture")
    assert rows["a/one.png"]["error"].startswith(f"{source}/a/one.png: {output}/a/one_x4.png is already written")
    assert store.find("/bucket/out") == ["/bucket/out/a/one_x4.png"]
    assert store.cat("/bucket/out/a/one_x4.png") == (tmp_path / "out/a/one_x4.png").read_bytes()
    store.pipe("/bucket/photos/a/b/one.png", (photos / "a/b/one.png").read_bytes())
    rows = rows_by_name(worker(pictures), source)
    assert (rows["a/one.jpg"]["status"], rows["a/one.jpg"]["width"]) == ("skipped", 256)
    assert rows["a/b/one.png"]["status"] == "written"


def test_what_a_store_refuses_to_take_is_a_row(photos, monkeypatch):
    store = fsspec.filesystem("memory")
    store.rm("/", recursive=True)

    def put_file(*arguments):
        raise PermissionError("access denied")

    worker = PictureWorker(COMMAND, str(photos), "memory://bucket/out")
    monkeypatch.setattr(type(store), "put_file", put_file)
    row = rows_by_name(worker(find_pictures(str(photos))), photos)["a/one.jpg"]
    assert (row["status"], row["error"]) == ("failed", f"{photos}/a/one.jpg: PermissionError: access denied")
    assert not store.find("/bucket/out")


def test_the_manifest_leaves_out_what_is_done(photos, tmp_path):
    manifest = tmp_path / "manifest"
    pictures = find_pictures(str(photos), str(manifest))
    assert len(pictures) == 4
    done = PictureWorker(COMMAND, str(photos), str(tmp_path / "out"))(pictures)
    manifest.mkdir()
    (manifest / "cut_off.parquet").write_bytes(b"PAR1")
    assert len(find_pictures(str(photos), str(manifest))) == 4
    pyarrow.parquet.write_table(done, manifest / "0.parquet")
    assert set(rows_by_name(find_pictures(str(photos), str(manifest)), photos)) == {"a/broken.png", "a/one.png"}


def test_stylize_is_the_other_command(runner, photos, tmp_path):
    command = "stylize --model starry-night_int8 --threads 1 --format jpg"
    shutil.rmtree(photos / "a")
    shutil.copy(photos / ".hidden/one.png", photos)
    assert runner.invoke(main, [*command.split(), str(photos), "-o", str(tmp_path / "expected")]).exit_code == 0
    PictureWorker(command, str(photos), str(tmp_path / "out"))(find_pictures(str(photos)))
    assert list(read_files(tmp_path / "out")) == ["one_starry-night_int8.jpg"]
    assert read_files(tmp_path / "out") == read_files(tmp_path / "expected")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("evaluate --model x4", "command must begin with upscale or stylize. Received: 'evaluate --model x4'."),
        ("", "command must begin with upscale or stylize. Received: ''."),
        ("upscale --modle x4", "No such option"),
        ("upscale --width 10 --max-side 10", "exclude each other"),
        ("upscale photo.jpg", "must have no inputs"),
        ("upscale -o out", "must have no inputs"),
        ("upscale --overwrite", "results that exist are kept"),
    ],
)
def test_a_command_that_cannot_be_divided_is_refused(command, message):
    with pytest.raises(ConfigError, match=message):
        PictureWorker(command, "photos", "out")


@pytest.mark.parametrize("is_local", [True, False])
def test_films_are_left_out_and_that_is_said(photos, is_local, caplog):
    (photos / "a" / "clip.MP4").touch()
    (photos / "a" / "other.mp4").touch()
    (photos / ".hidden" / "hidden.mkv").touch()
    source = str(photos)
    if not is_local:
        store, source = fsspec.filesystem("memory"), "memory://films"
        store.rm("/", recursive=True)
        store.put(str(photos), "/films", recursive=True)
    assert set(rows_by_name(find_pictures(source), source)) == {
        "a/b/one.png",
        "a/broken.png",
        "a/one.jpg",
        "a/one.png",
    }
    remedy = "Process them with keras-psr upscale or stylize."
    assert caplog.messages == [f"Films in {source} are left out: 2 .mp4. {remedy}"]


def test_a_film_in_a_table_of_ones_own_gets_the_file_of_the_command(runner, make_film, pan, tmp_path):
    source = make_film("clip.mp4", pan[:3], codec="libx264", kind="yuv420p")
    arguments = ["--model", "x2-fast", "--threads", "1", "--device", "cpu"]
    assert runner.invoke(main, ["upscale", *arguments, str(source), "-o", str(tmp_path / "expected/")]).exit_code == 0
    table = pyarrow.Table.from_pylist([{"input": str(source), "namesake": None}], PICTURES)
    worker = PictureWorker(" ".join(["upscale", *arguments]), str(source.parent), str(tmp_path / "out"))
    (row,) = worker(table).to_pylist()
    assert (row["status"], row["error"]) == ("written", None)
    assert read_frames(tmp_path / "out/clip_x2.mp4") == read_frames(tmp_path / "expected/clip_x2.mp4")


def read_frames(path):
    from keras_psr.films.reading import FilmReader, read_film

    return [moment.photo.pixels.tobytes() for moment in FilmReader(read_film(path))]


def test_a_missing_model_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(ModelError, match="x5"):
        PictureWorker("upscale --model x5", "photos", "out")
    with pytest.raises(DataError, match="no pictures"):
        find_pictures(str(tmp_path))
    with pytest.raises(DataError, match="no pictures in memory://nowhere"):
        find_pictures("memory://nowhere")


def test_pictures_of_another_folder_are_refused(photos, tmp_path):
    with pytest.raises(ConfigError, match="source must be the folder of the table's pictures"):
        PictureWorker(COMMAND, str(tmp_path / "other"), str(tmp_path / "out"))(find_pictures(str(photos)))


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory):
    """A folder with 40 pictures of 160x120 pixels."""
    folder, photograph = tmp_path_factory.mktemp("many") / "photos", Image.fromarray(skimage.data.coffee())
    folder.mkdir()
    for index in range(40):
        photograph.crop((index, index, index + 160, index + 120)).save(folder / f"{index:02}.png")
    return folder


@pytest.mark.slow
def test_parts_cost_no_more_processor_time_than_the_command(runner, many_photos, tmp_path):
    pictures = find_pictures(str(many_photos))
    worker = PictureWorker(COMMAND, str(many_photos), str(tmp_path / "parts"))

    def work_in_parts():
        for start in range(0, len(pictures), 20):
            assert set(worker(pictures.slice(start, 20))["status"].to_pylist()) == {"written"}

    def run_command():
        arguments = [*COMMAND.split(), str(many_photos), "-o", str(tmp_path / "whole")]
        assert runner.invoke(main, arguments).exit_code == 0

    seconds = {work_in_parts: [], run_command: []}
    for _ in range(3):
        for run, measured in seconds.items():
            shutil.rmtree(tmp_path / "parts", ignore_errors=True)
            shutil.rmtree(tmp_path / "whole", ignore_errors=True)
            start = time.process_time()
            run()
            measured.append(time.process_time() - start)
    assert min(seconds[work_in_parts]) <= 1.1 * min(seconds[run_command])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(many_photos, tmp_path):
    pictures, worker = find_pictures(str(many_photos)), PictureWorker(COMMAND, str(many_photos), str(tmp_path / "out"))

    def work():
        worker(pictures)
        shutil.rmtree(tmp_path / "out")
        return psutil.Process().memory_info().rss

    first = work()
    assert max(work() for _ in range(4)) - first < 10e6
