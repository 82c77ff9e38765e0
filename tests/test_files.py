"""Files that are whole or not there: links, permissions, leftovers of a kill, and file systems that
promise less.
"""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import warnings

import pytest

import biolearn.core.files as files_module
from biolearn.core.files import expand_home, flush_folder, real_target, write_whole

posix = pytest.mark.skipif(os.name == "nt", reason="links, permissions and locks of POSIX")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(os.listdir(folder))


def write(path, text="new"):
    with write_whole(path) as part:
        part.write_text(text)


def test_write_whole_all_or_nothing(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(ZeroDivisionError), write_whole(path) as part:
        part.write_text("half")
        1 / 0
    assert not list(tmp_path.iterdir())
    with write_whole(path) as part:
        part.write_text("whole")
        assert not path.exists() and part.suffix == ".txt"
    assert path.read_text() == "whole" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_of_the_system_names_the_file_that_was_wanted(tmp_path):
    path = tmp_path / "a.txt"
    for error in (OSError(errno.ENOSPC, "No space left"), OSError(errno.EIO, "I/O error")):
        with pytest.raises(OSError, match="a.txt") as caught, write_whole(path):
            raise error
        assert caught.value.errno == error.errno and caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError, match="other.txt"), write_whole(path):
        open(tmp_path / "other.txt")
    with pytest.raises(OSError, match="disk full"), write_whole(path):
        raise OSError("disk full")
    with pytest.raises(FileNotFoundError, match="missing/a.txt"):
        write(tmp_path / "missing" / "a.txt")
    assert names(tmp_path) == []


# ---- links and permissions -----------------------------------------------------------------------


@posix
def test_a_link_is_written_through_and_stays(tmp_path):
    (tmp_path / "store").mkdir()
    real, link, second = tmp_path / "store" / "real.txt", tmp_path / "link.txt", tmp_path / "b.txt"
    real.write_text("old")
    link.symlink_to("store/real.txt")
    second.symlink_to(link)
    write(second)
    assert link.is_symlink() and second.is_symlink() and real.read_text() == "new"
    assert names(tmp_path / "store") == ["real.txt"] and os.readlink(link) == "store/real.txt"


@posix
@pytest.mark.parametrize("to", ["nowhere.txt", "away/nowhere.txt", "a.txt"])
def test_a_link_to_nowhere_is_refused_before_any_work(tmp_path, to):
    link = tmp_path / "a.txt"
    link.symlink_to(to)
    with pytest.raises(OSError, match=f"a symbolic link to {to}, which is not there.*a.txt"):
        write(link)
    with pytest.raises(OSError, match="which is not there"):
        real_target(link)
    assert names(tmp_path) == ["a.txt"] and os.readlink(link) == to


@posix
def test_what_is_no_ordinary_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to("folder.txt")
    for name, error in (("folder.txt", errno.EISDIR), ("link.txt", errno.EISDIR), ("pipe.txt", 22)):
        with pytest.raises(OSError) as caught:
            write(tmp_path / name)
        assert caught.value.errno == error
    assert stat.S_ISFIFO((tmp_path / "pipe.txt").stat().st_mode)
    assert names(tmp_path) == ["folder.txt", "link.txt", "pipe.txt"]


@posix
@pytest.mark.parametrize("old", [0o600, 0o640, 0o644, 0o444, 0o755])
def test_an_existing_file_keeps_its_permissions_and_is_never_wider(tmp_path, old):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(old)
    with write_whole(path) as part:
        assert mode(part) == 0o600
        part.write_text("new")
    assert mode(path) == old and path.read_text() == "new"


@posix
@pytest.mark.parametrize("mask, expected", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_of_every_new_file(tmp_path, mask, expected):
    before = os.umask(mask)
    try:
        write(tmp_path / "a.txt")
        (tmp_path / "b.txt").write_text("ordinary")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.txt") == mode(tmp_path / "b.txt") == expected


@posix
def test_the_mask_of_the_process_is_never_touched(tmp_path, monkeypatch):
    "It belongs to all threads: another one's file would get other rights."
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the mask was changed"))
    write(tmp_path / "a.txt")
    write(tmp_path / "a.txt", "again")


def test_a_long_name_is_as_good_as_a_short_one(tmp_path):
    path = tmp_path / ("x" * 250 + ".txt")
    write(path)
    write(path, "again")
    assert path.read_text() == "again" and len(names(tmp_path)) == 1


# ---- what a kill leaves --------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from biolearn.core.files import write_whole
with write_whole(sys.argv[1]) as part:
    part.write_text("half of a longer te")
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print(part, flush=True)
    sys.stdin.readline()
"""


@posix
def test_the_next_write_of_the_same_file_clears_what_kills_have_left(tmp_path):
    path, other = tmp_path / "m.txt", tmp_path / "n.txt"
    for target in (path, path, other):
        done = subprocess.run([sys.executable, "-c", KILLED, target, "kill"])
        assert done.returncode == -signal.SIGKILL
    mine = tmp_path / ".m-notes.txt"  # of the user's own, of a similar name
    mine.write_text("mine")
    left = set(names(tmp_path))
    assert len(left) == 3 and not path.exists()  # the second has cleared the first's
    write(path)
    assert path.read_text() == "new" and mine.read_text() == "mine"
    (kept,) = set(names(tmp_path)) - {"m.txt", ".m-notes.txt"}
    assert kept in left and kept.startswith(".n-")  # another file's is that file's business
    write(other)
    assert names(tmp_path) == [".m-notes.txt", "m.txt", "n.txt"]


@posix
def test_a_living_neighbours_file_is_no_leftover(tmp_path):
    path = tmp_path / "m.txt"
    neighbour = subprocess.Popen(
        [sys.executable, "-c", KILLED, path, "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        part = neighbour.stdout.readline().strip()
        write(path)
        assert os.path.exists(part) and path.read_text() == "new"
        neighbour.communicate("go on\n", timeout=60)
    finally:
        neighbour.kill()
        neighbour.wait()
    assert path.read_text() == "half of a longer te" and names(tmp_path) == ["m.txt"]


def test_many_threads_write_one_file_and_it_is_whole(tmp_path):
    path, errors = tmp_path / "a.txt", []

    def often(i):
        try:
            for _ in range(20):
                write(path, f"{i}" * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=often, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert errors == [] and path.read_text() in [f"{i}" * 1000 for i in range(4)]
    assert names(tmp_path) == ["a.txt"]


# ---- file systems that promise less --------------------------------------------------------------


def refusing(monkeypatch, name, code, real=None):
    "Let `os.name` fail as a file system does that does not serve it."

    def refuse(*args, **kw):
        raise OSError(code, os.strerror(code), str(args[0]))

    monkeypatch.setattr(os, name, refuse)


@posix
@pytest.mark.parametrize(
    "name, codes, missing",
    [
        ("chmod", ("EPERM", "ENOTSUP", "ENOSYS", "EACCES"), "its permissions are not those"),
        ("fsync", ("EINVAL", "ENOSYS", "ENOTSUP"), "may not survive a power cut"),
        ("replace", ("EXDEV", "EPERM", "EEXIST", "EBUSY", "ENOSYS"), "it was copied over"),
    ],
)
def test_a_promise_that_cannot_be_had_is_one_warning(tmp_path, monkeypatch, name, codes, missing):
    for code in codes:
        path = tmp_path / f"{code}.txt"
        path.write_text("old and longer")
        with monkeypatch.context() as patch:
            refusing(patch, name, getattr(errno, code))
            with pytest.warns(UserWarning, match=f"{code}.txt: .*{missing}") as said:
                write(path)
        assert len(said) == 1 and said[0].filename == __file__
        assert path.read_text() == "new"
    assert names(tmp_path) == sorted(f"{code}.txt" for code in codes)


@posix
def test_files_cannot_be_locked_and_nothing_is_taken_for_a_leftover(tmp_path, monkeypatch):
    import fcntl

    left = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "m.txt", "kill"])
    assert left.returncode and len(names(tmp_path)) == 1
    monkeypatch.setattr(
        fcntl, "flock", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks"))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "m.txt")
    assert len(names(tmp_path)) == 2 and (tmp_path / "m.txt").read_text() == "new"


@posix
def test_a_copy_that_fails_loses_nothing(tmp_path, monkeypatch):
    "Where renaming is refused and the disk is full, the new contents stay in the temporary file."
    path = tmp_path / "a.txt"
    path.write_text("old")
    refusing(monkeypatch, "replace", errno.EXDEV)

    def full(*a):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left on device; all of the new one is in .*a.txt"):
        write(path)
    (kept,) = set(names(tmp_path)) - {"a.txt"}
    assert (tmp_path / kept).read_text() == "new"


@posix
@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("code", ["ENOSPC", "EIO"])
def test_a_failure_is_still_a_failure(tmp_path, monkeypatch, name, code):
    (tmp_path / "a.txt").write_text("old")
    refusing(monkeypatch, name, getattr(errno, code))
    with pytest.raises(OSError) as caught:
        write(tmp_path / "a.txt")
    assert caught.value.errno == getattr(errno, code)
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_that_cannot_be_flushed_is_said(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flush_folder(tmp_path)
    if os.name != "nt":
        refusing(monkeypatch, "fsync", errno.EINVAL)
        with pytest.warns(UserWarning, match="may not survive a power cut"):
            flush_folder(tmp_path)


def test_a_user_without_a_home_folder(monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    assert str(expand_home("~")) == os.path.expanduser("~")
    monkeypatch.setattr(files_module.Path, "expanduser", no_home)
    assert expand_home("~/a.txt") == files_module.Path("~/a.txt")
