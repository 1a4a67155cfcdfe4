import pytest

from keras_psr.images.atomic import remove_unfinished, temporary_folder, write_whole


def test_a_file_appears_when_it_is_complete_and_not_after_an_error(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with write_whole(path) as unfinished:
        unfinished.write_text("whole")
        assert not path.exists() and unfinished.parent == path.parent
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]
    with pytest.raises(ZeroDivisionError), write_whole(path) as unfinished:
        unfinished.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_a_temporary_folder_is_removed_with_its_contents(tmp_path):
    with temporary_folder(tmp_path) as folder:
        (folder / "in" / "it").mkdir(parents=True)
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_an_exit_removes_what_is_unfinished_and_nothing_else(tmp_path):
    with write_whole(tmp_path / "finished.txt") as unfinished:
        unfinished.write_text("whole")
    with temporary_folder(tmp_path) as folder, pytest.raises(FileNotFoundError):
        with write_whole(tmp_path / "a.txt") as unfinished:
            unfinished.write_text("half")
            (folder / "b.txt").write_text("half")
            remove_unfinished()
            assert list(tmp_path.iterdir()) == [tmp_path / "finished.txt"]
