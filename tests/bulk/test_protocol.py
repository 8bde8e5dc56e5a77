"""What is committed stays committed, what is not is made again, and bad inputs stop nobody else."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest
from bulk_work import Reverse

from aipo.basics.errors import InputError
from aipo.bulk.local import NoRoomError, run
from aipo.bulk.protocol import MANIFESTS, Item, identity, latest, lines
from aipo.bulk.sources import items

SUFFIXES = frozenset({".txt"})


def inputs(folder: Path, count: int = 6) -> list[Item]:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.txt").write_bytes(f"content {number}".encode())
    return list(items([str(folder)], SUFFIXES))


def job(given: list[Item], out: Path, work: Reverse | None = None, workers: int = 1) -> list[dict]:
    out.mkdir(exist_ok=True)
    return list(run(iter(given), work or Reverse(), out, workers))


def marked(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_every_output_is_whole_and_known_by_its_hash(tmp_path):
    given = inputs(tmp_path / "in")
    made = job(given, tmp_path / "out", workers=2)
    assert sorted(line["source"] for line in made) == [item.source for item in given]
    for line in made:
        data = (tmp_path / "out" / line["output"]).read_bytes()
        assert data[::-1] == Path(line["source"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == line["sha256"]
        assert line["output"].startswith(Path(line["source"]).stem + "-" + line["id"][:16])
    assert len(list((tmp_path / "out").glob("*.bin"))) == 6


def test_a_second_run_verifies_and_makes_only_what_is_missing(tmp_path):
    given, marks = inputs(tmp_path / "in"), tmp_path / "marks"
    work = Reverse(marks=str(marks))
    first = job(given, tmp_path / "out", work)
    (tmp_path / "out" / first[0]["output"]).write_bytes(b"spoilt")
    (tmp_path / "out" / first[1]["output"]).unlink()
    Path(given[2].path).write_bytes(b"other content")
    second = job(given, tmp_path / "out", work)
    anew = [line["source"] for line in second if "again" not in line]
    assert sorted(anew) == sorted([first[0]["source"], first[1]["source"], given[2].source])
    assert len(marked(marks)) == 6 + 3
    assert job(given, tmp_path / "out", Reverse(run="other options", marks=str(marks)))
    assert len(marked(marks)) == 6 + 3 + 6


def test_a_bad_input_is_told_and_the_others_go_on(tmp_path):
    given = inputs(tmp_path / "in", 5)
    for item, content in zip(given, (b"bad", b"odd", b"kill", b"once"), strict=False):
        Path(item.path).write_bytes(content)
    given.append(Item("gone", str(tmp_path / "gone.txt")))
    made = {line["source"]: line for line in job(given, tmp_path / "out", workers=2)}
    errors = [made[item.source].get("error", "") for item in given]
    assert "is bad; mend it" in errors[0] and r"RuntimeError: an odd\x1b[31m error" in errors[1]
    assert "killed by signal 9, 2 times" in errors[2] and "gone" in errors[5]
    assert made[given[3].source]["status"] == made[given[4].source]["status"] == "done"
    assert latest(tmp_path / "out").keys() == made.keys()


def test_a_line_that_a_kill_cut_short_is_passed_over(tmp_path):
    given = inputs(tmp_path / "in", 3)
    job(given, tmp_path / "out")
    (manifest,) = (file for file in (tmp_path / "out" / MANIFESTS).glob("*.jsonl") if file.stat().st_size)
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-20])
    assert len(list(lines(tmp_path / "out"))) == 2
    assert sum("again" in line for line in job(given, tmp_path / "out")) == 2


def test_done_wins_over_a_later_failure_of_the_same_source(tmp_path):
    folder = tmp_path / MANIFESTS
    folder.mkdir()
    done, failed = {"source": "a", "status": "done"}, {"source": "a", "status": "failed"}
    for order in ([done, failed], [failed, done]):
        (folder / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in order))
        assert latest(tmp_path)["a"]["status"] == "done"


def test_an_input_that_failed_and_now_has_known_content_is_done(tmp_path):
    given = inputs(tmp_path / "in", 2)
    Path(given[1].path).write_bytes(b"bad")
    job(given, tmp_path / "out")
    assert latest(tmp_path / "out")[given[1].source]["status"] == "failed"
    Path(given[1].path).write_bytes(Path(given[0].path).read_bytes())
    assert all("again" in line for line in job(given, tmp_path / "out"))
    assert latest(tmp_path / "out")[given[1].source]["status"] == "done"


def test_what_an_identity_depends_on():
    item = Item("a.png", "a.png")
    base = identity(b"content", item, "run")
    assert base == identity(b"content", Item("b.png", "b.png"), "run")
    assert base != identity(b"Content", item, "run") != identity(b"content", item, "other")
    assert base != identity(b"content", Item("a.png", "a.png", options={"sigma": "0.1"}), "run")


def test_no_room_stops_the_job_and_keeps_what_is_finished(tmp_path):
    """Files of this process's workers may not grow beyond a limit."""
    given = inputs(tmp_path / "in", 4)
    Path(given[2].path).write_bytes(b"x" * 100_000)
    program = (
        "import resource, sys; from pathlib import Path; from bulk_work import Reverse\n"
        "from aipo.bulk.local import NoRoomError, run; from aipo.bulk.sources import items\n"
        "if __name__ == '__main__':\n"
        "    import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "    try:\n"
        "        given = items([sys.argv[1]], frozenset({'.txt'}))\n"
        "        for line in run(given, Reverse(), Path(sys.argv[2]), 1):\n"
        "            print(line['status'])\n"
        "    except NoRoomError as error:\n"
        "        print(error); sys.exit(3)\n"
    )
    (tmp_path / "out").mkdir()
    told = program_run(tmp_path, program)
    assert told.returncode == 3 and "free some space" in told.stdout and told.stdout.count("done") == 2
    assert len(list((tmp_path / "out").glob("*.bin"))) == 2
    assert len([line for line in job(given, tmp_path / "out") if "again" in line]) == 2


def program_run(tmp_path: Path, program: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "program.py"
    file.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, str(file), str(tmp_path / "in"), str(tmp_path / "out")]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_a_killed_driver_takes_its_workers_along_and_loses_nothing(tmp_path):
    given = inputs(tmp_path / "in", 12)
    program = (
        "import sys; from pathlib import Path; from bulk_work import Reverse\n"
        "from aipo.bulk.local import run; from aipo.bulk.sources import items\n"
        "if __name__ == '__main__':\n"
        "    given = items([sys.argv[1]], frozenset({'.txt'}))\n"
        "    for line in run(given, Reverse(seconds=0.2), Path(sys.argv[2]), 2):\n"
        "        print(line['output'], flush=True)\n"
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "in"), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdout is not None
        told = [driver.stdout.readline().strip() for _ in range(3)]
        driver.send_signal(signal.SIGKILL)
    time.sleep(1.0)
    found = {file.name for file in (tmp_path / "out").glob("*.bin")}
    time.sleep(1.0)
    assert found == {file.name for file in (tmp_path / "out").glob("*.bin")}, "a worker goes on alone"
    assert set(told) <= found and len(found) <= 3 + 4
    made = job(given, tmp_path / "out")
    assert sum("again" in line for line in made) >= 3
    assert {line["output"] for line in made} == {file.name for file in (tmp_path / "out").glob("*.bin")}
    assert not list((tmp_path / "out").glob(".*.tmp")) or len(list((tmp_path / "out").glob(".*.tmp"))) <= 2


# Sources.


def test_folders_patterns_tars_and_lists(tmp_path):
    inputs(tmp_path / "in", 2)
    (tmp_path / "in" / "deep").mkdir()
    (tmp_path / "in" / "deep" / "c.TXT").write_bytes(b"deep")
    (tmp_path / "in" / "other.doc").write_bytes(b"no")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    names = [Path(item.path).name for item in items([str(tmp_path / "in")], SUFFIXES)]
    assert names == ["0.txt", "1.txt", "c.TXT"]
    found = items([str(tmp_path / "in" / "**" / "*.txt")], SUFFIXES)
    assert {Path(item.path).name for item in found} == {"0.txt", "1.txt"}
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("x.txt", b"in x"), ("skip.doc", b"no"), ("d/y.txt", b"in y")):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, BytesIO(content))
    within = list(items([str(tmp_path / "a.tar")], SUFFIXES))
    assert [item.read() for item in within] == [b"in x", b"in y"] and within[1].source.endswith("::d/y.txt")
    with open(tmp_path / "list.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["path", "sigma"], ["in/0.txt", "0.1"], ["in/1.txt", ""]])
    listed = list(items([str(tmp_path / "list.csv")], SUFFIXES))
    assert [item.options for item in listed] == [{"sigma": "0.1"}, {}]
    assert listed[0].read() == b"content 0"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone", None, "does not exist"),
        ("x*.txt", None, "has no pictures"),
        ("broken.tar", b"no tar at all" * 100, "no sound tar"),
        ("list.csv", b"file,sigma\na,1\n", "no column 'path'"),
        ("list.csv", b"path\na,b,c\n", "line 2"),
        ("list.csv", b"\xff\xfe\x00", "is no list"),
    ],
)
def test_sources_that_are_refused(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        list(items([str(tmp_path / name)], SUFFIXES))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no pictures"):
        list(items([str(tmp_path)], SUFFIXES))


def test_no_room_is_an_error_of_the_whole_job():
    assert not issubclass(NoRoomError, InputError)
