"""LiteRT's log lines are kept from the console, and what others write in the meantime is not lost."""

import os
import subprocess
import sys
import threading

from keras_psr.inference.litert_log import captured_log


def write_as_library(number, text):
    """Writes past Python's streams, as native code does."""
    os.write(number, text.encode())


def test_log_lines_are_taken_and_other_lines_passed_on(capfd):
    with captured_log() as lines:
        write_as_library(2, "INFO: [environment.cc:36] Creating\nI0000 00:00:17.5 1 environment.cc:532] Selected\n")
        write_as_library(1, "INFO: Failed to load OpenCL library\n")
        thread = threading.Thread(target=lambda: print("from another thread"))
        thread.start()
        thread.join()
        write_as_library(2, "Error: of the command itself\n")
        assert lines == []
    output, error = capfd.readouterr()
    assert lines == [
        "INFO: Failed to load OpenCL library",
        "INFO: [environment.cc:36] Creating",
        "I0000 00:00:17.5 1 environment.cc:532] Selected",
        "Error: of the command itself",
    ]
    assert (output, error) == ("from another thread\n", "")
    write_as_library(2, "afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_the_console_comes_back_after_an_error(capfd):
    try:
        with captured_log():
            write_as_library(2, "ERROR: [a.cc:1] broken\n")
            raise RuntimeError
    except RuntimeError:
        print("after", file=sys.stderr)
    assert capfd.readouterr().err == "after\n"


def test_no_descriptor_is_leaked():
    with captured_log():
        pass
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for _ in range(5):
        with captured_log():
            pass
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)


def test_without_a_console_nothing_happens():
    code = (
        "import os; os.close(1); os.close(2)\n"
        "from keras_psr.inference.litert_log import captured_log\n"
        "with captured_log() as lines: pass\n"
        "os._exit(0 if lines == [] else 3)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
