"""The journal keeps what was written, through torn lines, full disks and kills."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.journal import DeadJournal, Journal, JournalUnwritable, line_of, read_lines


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An open journal with small segments."""
    journal = Journal(tmp_path / "worker-1", fsync="off", segment_bytes_max=200)
    journal.open()
    yield journal
    journal.close()


def logs(folder: Path) -> list[str]:
    """The names of a journal's segments."""
    return sorted(path.name for path in folder.glob("*.log"))


def test_lines_come_back_as_they_were_written(journal: Journal, tmp_path: Path) -> None:
    journal.append("r1", line_of("S", "r1", b'"n":1,"upstream":9'))

    lines = list(read_lines(tmp_path / "worker-1" / "000001.log"))

    assert lines == [{"t": "S", "rid": "r1", "n": 1, "upstream": 9}]


@pytest.mark.parametrize(
    "damage",
    [
        b"00000000 {}\n",
        b"zzzzzzzz {}\n",
        b"\n\n",
        b"no line at all",
        b'deadbeef {"t":"P"',
        b"\xff\xfe\n",
    ],
)
def test_damaged_lines_are_skipped_and_the_others_read(
    journal: Journal, tmp_path: Path, damage: bytes
) -> None:
    path = tmp_path / "worker-1" / "000001.log"
    journal.append("r1", line_of("S", "r1", b'"n":1'))
    with path.open("ab") as file:
        file.write(damage)

    assert [line["rid"] for line in read_lines(path)] == ["r1"]


def test_segment_is_deleted_when_nobody_needs_it(journal: Journal, tmp_path: Path) -> None:
    folder = tmp_path / "worker-1"
    long = line_of("S", "r", b'"n":"%b"' % (b"x" * 80))
    for rid in ("r1", "r2", "r3"):
        journal.append(rid, long)
    begun = logs(folder)

    journal.confirm("r2")
    kept = logs(folder)
    journal.confirm("r1")
    left = logs(folder)

    assert begun == ["000001.log", "000002.log", "000003.log"]
    assert kept == begun
    assert len(left) < len(begun)


def test_closing_an_empty_journal_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "worker-2", fsync="always")
    journal.open()
    journal.append("r1", line_of("S", "r1", b'"n":1'))
    journal.confirm("r1")

    journal.close()

    assert not (tmp_path / "worker-2").exists()


def test_closing_with_something_unconfirmed_leaves_it_to_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "worker-2", fsync="off")
    journal.open()
    journal.append("r1", line_of("A", "r1", b'"base":{},"spec":{}'))
    journal.close()

    dead = DeadJournal.take(tmp_path / "worker-2")

    assert dead is not None
    assert list(dead.read()) == ["r1"]
    dead.remove()
    assert not (tmp_path / "worker-2").exists()


def test_folder_of_a_living_worker_cannot_be_taken(journal: Journal, tmp_path: Path) -> None:
    assert DeadJournal.take(tmp_path / "worker-1") is None


def test_two_cannot_take_the_same_dead_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "worker-2", fsync="off")
    journal.open()
    journal.append("r1", line_of("S", "r1", b'"n":1'))
    journal.close()

    first = DeadJournal.take(tmp_path / "worker-2")
    second = DeadJournal.take(tmp_path / "worker-2")

    assert first is not None
    assert second is None
    first.release()


def test_lines_survive_sigkill(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from proxy.journal import Journal, line_of\n"
        "journal = Journal(Path(sys.argv[1]), fsync='off'); journal.open()\n"
        "for n in range(500):\n"
        "    journal.append(f'r{n}', line_of('S', f'r{n}', b'\"n\":1,\"upstream\":9'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder = tmp_path / "worker-3"

    ended = subprocess.run([sys.executable, "-c", program, str(folder)], check=False)
    dead = DeadJournal.take(folder)

    assert ended.returncode == -signal.SIGKILL
    assert dead is not None
    assert len(dead.read()) == 500
    dead.release()


def test_full_disk_stops_the_journal_until_it_takes_lines_again(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from proxy.journal import Journal, JournalUnwritable, line_of\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = Journal(Path(sys.argv[1]), fsync='off'); journal.open()\n"
        "journal.append('r1', line_of('S', 'r1', b'\"n\":1,\"upstream\":9'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    journal.append('r2', line_of('S', 'r2', b'\"n\":\"%b\"' % (b'x' * 500)))\n"
        "except JournalUnwritable: print('refused', journal.is_writable)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "journal.probe(); print('again', journal.is_writable)\n"
        "journal.append('r3', line_of('S', 'r3', b'\"n\":1,\"upstream\":9'))\n"
    )
    folder = tmp_path / "worker-4"

    said = subprocess.run(
        [sys.executable, "-c", program, str(folder)], check=True, capture_output=True, text=True
    ).stdout.split()
    dead = DeadJournal.take(folder)

    assert said == ["refused", "False", "again", "True"]
    assert dead is not None
    assert list(dead.read()) == ["r1", "r3"]
    dead.release()


def test_folder_that_cannot_be_made_is_unwritable_and_probed(tmp_path: Path) -> None:
    blocker = tmp_path / "blocked"
    blocker.write_text("a file, not a folder")
    journal = Journal(blocker / "worker-5", fsync="off")

    with pytest.raises(JournalUnwritable):
        journal.open()
    journal.probe()
    was_writable = journal.is_writable
    blocker.unlink()
    journal.probe()

    assert (was_writable, journal.is_writable) == (False, True)
    journal.close()


def test_line_of_another_release_is_skipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "worker-6", fsync="off")
    journal.open()
    journal.append("r1", line_of("S", "r1", b'"other":1') + line_of("P", "r1", b'"usage":{}'))
    journal.close()

    dead = DeadJournal.take(tmp_path / "worker-6")

    assert dead is not None
    assert dead.read()["r1"].attempts == []
    dead.release()


def test_the_first_attempt_stands_with_the_admission_or_by_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "worker-7", fsync="off")
    journal.open()
    admitted = b'"base":{},"spec":{}'
    journal.append("r1", line_of("A", "r1", admitted + b',"n":1,"upstream":9'))
    journal.append("r2", line_of("A", "r2", admitted))
    journal.append("r3", line_of("A", "r3", admitted))
    journal.append("r3", line_of("S", "r3", b'"n":1,"upstream":9'))
    journal.close()

    dead = DeadJournal.take(tmp_path / "worker-7")
    assert dead is not None
    remains = dead.read()
    dead.release()

    attempt = {"n": 1, "upstream": 9}
    assert [remains[rid].attempts for rid in ("r1", "r2", "r3")] == [[attempt], [], [attempt]]


def test_a_line_is_read_again_where_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "worker-8", fsync="off", segment_bytes_max=200)
    journal.open()
    lines = [line_of("S", f"r{n}", b'"n":"%b"' % (b"x" * 10 * n)) for n in range(12)]

    places = [journal.append(f"r{n}", line) for n, line in enumerate(lines)]

    found = [journal.line_at(place) for place in places]
    journal.close()
    assert [line.split(b" ", 1)[1].rstrip() for line in lines] == found
    assert len(list((tmp_path / "worker-8").glob("*.log"))) > 2


def test_a_line_that_the_disk_does_not_give_back_is_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "worker-9", fsync="off")
    journal.open()
    place = journal.append("r1", line_of("S", "r1", b'"n":1'))
    segment = next((tmp_path / "worker-9").glob("*.log"))

    segment.write_bytes(segment.read_bytes().replace(b'"n":1', b'"n":2'))
    damaged = journal.line_at(place)
    segment.unlink()

    assert (damaged, journal.line_at(place)) == (None, None)
    journal.close()


def test_what_follows_a_torn_line_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "worker-10", fsync="off")
    journal.open()
    line = line_of("S", "r1", b'"n":1')
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
    with pytest.raises(JournalUnwritable):
        journal.append("r1", line)
    monkeypatch.undo()

    # Nobody tried the disk meanwhile: a stream that ran on has come to its end.
    place = journal.append("r2", line)
    journal.probe()
    later = journal.append("r3", line)

    assert journal.line_at(place) == journal.line_at(later) == line.split(b" ", 1)[1].rstrip()
    journal.close()
