"""A result's name belongs to one run at a time, and what a killed run leaves goes."""

import subprocess
import sys
from contextlib import ExitStack

import pytest

from keras_psr.cli.claims import ClaimedError, Claims, remove_stale_parts


def test_a_claim_gives_a_hidden_file_of_the_same_ending_and_leaves_nothing(tmp_path):
    target = tmp_path / "new" / "photo_x4.webp"
    with Claims() as claims, claims.claim(target) as part:
        assert part.parent == target.parent and part.suffix == ".webp" and part.name.startswith(".part.")
        part.write_text("half")
    assert list(target.parent.iterdir()) == []


def test_only_one_run_has_a_name_and_others_are_free(tmp_path):
    with Claims() as first, Claims() as second:
        with first.claim(tmp_path / "a.png") as part:
            with pytest.raises(ClaimedError), second.claim(tmp_path / "a.png"):
                pass
            with second.claim(tmp_path / "b.png") as other:
                assert other != part
        with second.claim(tmp_path / "a.png") as again:
            assert again != part, "parts have names of their own"
    assert list(tmp_path.iterdir()) == []


def test_a_claim_ends_with_an_error_in_it(tmp_path):
    with pytest.raises(ZeroDivisionError), Claims() as claims, claims.claim(tmp_path / "a.png") as part:
        part.write_text("half")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_free_after_the_end_of_its_run_although_its_thread_goes_on(tmp_path):
    claim = ExitStack()
    with Claims() as claims:
        claim.enter_context(claims.claim(tmp_path / "a.png")).write_text("half")
    with claim:
        assert list(tmp_path.iterdir()) == []
        with Claims() as others, others.claim(tmp_path / "a.png"):
            pass


def test_the_longest_name_can_be_claimed(tmp_path):
    target = tmp_path / ("n" * 251 + ".png")
    with Claims() as claims, claims.claim(target) as part:
        part.write_text("whole")
        part.rename(target)
    assert target.read_text() == "whole"


def leave_part(folder, name):
    """What a run leaves that is killed while it writes."""
    code = (
        "import os, sys, pathlib\nfrom keras_psr.cli.claims import Claims\n"
        "claim = Claims().claim(pathlib.Path(sys.argv[1]))\npart = claim.__enter__()\n"
        "part.write_text('half')\n(part.parent / ('.part.' + part.name)).write_text('half')\nos._exit(9)"
    )
    before = set(folder.iterdir())
    assert subprocess.run([sys.executable, "-c", code, str(folder / name)], check=False).returncode == 9
    left = {path.suffix for path in set(folder.iterdir()) - before if path.name.startswith(".part.")}
    assert left == {".lock", ".png"}


def test_what_a_killed_run_left_goes_and_what_a_live_one_has_stays(tmp_path):
    with Claims() as claims, claims.claim(tmp_path / "live.png") as part:
        part.write_text("half")
        before = set(tmp_path.iterdir())
        leave_part(tmp_path, "killed.png")
        remove_stale_parts([tmp_path])
        assert set(tmp_path.iterdir()) == before and part.read_text() == "half"
    assert list(tmp_path.iterdir()) == []


def test_a_new_claim_takes_away_what_was_left_of_the_same_name(tmp_path):
    leave_part(tmp_path, "a.png")
    (tmp_path / ".part.a.png").write_text("half")
    (tmp_path / ".part.b.png").write_text("half of another")
    with Claims() as claims, claims.claim(tmp_path / "a.png"):
        pass
    assert [path.name for path in tmp_path.glob("*.png")] == [".part.b.png"]


def test_a_folder_is_shared_from_another_runs_first_claim_in_it_to_its_end(tmp_path):
    from keras_psr.cli.claims import is_shared

    assert not is_shared(tmp_path)
    with Claims() as claims:
        with claims.claim(tmp_path / "a.png"):
            assert is_shared(tmp_path)
        assert is_shared(tmp_path), "the run goes on"
    assert not is_shared(tmp_path)
    leave_part(tmp_path, "killed.png")
    assert not is_shared(tmp_path)


def test_without_locks_a_claim_still_gives_a_name_of_its_own(tmp_path, monkeypatch):
    def refuse(self, **options):
        raise NotImplementedError

    monkeypatch.setattr("keras_psr.cli.claims.FileLock.acquire", refuse)
    with Claims() as first, Claims() as second:
        with first.claim(tmp_path / "a.png") as one, second.claim(tmp_path / "a.png") as two:
            one.write_text("1")
            two.write_text("2")
            assert one != two and one.read_text() == "1"
    assert list(tmp_path.iterdir()) == []
