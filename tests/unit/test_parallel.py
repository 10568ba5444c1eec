"""Work shared out to forked processes gives what it gives in one, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ltrobust_bench import parallel

RECORDS = Path(__file__).parents[2] / "results" / "records"
HEAD = """
import os, signal, sys, threading, time
from ltrobust_bench import parallel
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
parallel.LEAST = 0
parallel._cores = lambda: 2
parent = os.getpid()
"""
forks = pytest.mark.skipif(sys.platform != "linux", reason="work is only shared out on Linux")


def start(script: str, *arguments: str) -> subprocess.Popen:
    """A process of its own: pytest's has threads and torch, so nothing is forked there."""
    command = [sys.executable, "-c", HEAD + textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def said(script: str, *arguments: str, within: float = 120) -> str:
    process = start(script, *arguments)
    try:
        out, err = process.communicate(timeout=within)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err
    assert err == ""
    return out


@forks
def test_results_come_in_the_order_of_the_items_from_other_processes():
    out = said("""
        offset = 100
        found = parallel.each(lambda item: (item + offset, os.getpid()), range(50), 0, 3)
        assert [value for value, _ in found] == list(range(100, 150))
        print(len({pid for _, pid in found} - {parent}), parent in {pid for _, pid in found})
    """)
    count, here = out.split()
    assert int(count) in (1, 2) and here == "False"


@forks
@pytest.mark.parametrize(
    "unless",
    [
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "sys.modules['torch'] = os",
        "parallel.LEAST = 0.1",
        "parallel._cores = lambda: 1",
        "sys.platform = 'darwin'",
    ],
)
def test_nothing_is_forked_where_it_is_unsafe_or_does_not_pay(unless):
    assert (
        said(f"{unless}\nprint(set(parallel.each(lambda _: os.getpid(), range(50), 0.01)) == {{parent}})") == "True\n"
    )


@forks
def test_a_part_of_shared_work_is_not_shared_out_again():
    out = said("""
        inner = lambda _: set(parallel.each(lambda _: os.getpid(), range(5), 1)) == {os.getpid()}
        print(all(parallel.each(inner, range(5), 1)))
    """)
    assert out == "True\n"


@forks
def test_an_error_of_the_work_is_the_callers():
    out = said("""
        try:
            parallel.each(lambda item: 1 // item, [2, 1, 0], 1)
        except ZeroDivisionError as error:
            print(error)
        print(parallel.each(lambda item: item, [2, 1, 0], 1))
    """)
    assert out == "integer division or modulo by zero\n[2, 1, 0]\n"


@forks
@pytest.mark.parametrize("forks", [0, 1])
def test_where_no_more_processes_are_to_be_had_the_others_do_the_work(forks):
    out = said(
        f"""
        fork, forked = os.fork, []
        def limited():
            if len(forked) == {forks}:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            forked.append(fork())
            return forked[-1]
        os.fork = limited
        found = parallel.each(lambda item: (item, os.getpid()), range(5), 1)
        assert [item for item, _ in found] == list(range(5))
        assert {{pid for _, pid in found}} == set(forked or [parent])
        """,
        within=20,
    )
    assert out == ""


@forks
def test_where_processes_cannot_be_settled_the_work_is_done_here():
    out = said("""
        sys.modules["ctypes"] = None
        print(set(parallel.each(lambda _: os.getpid(), range(5), 1)) == {parent})
    """)
    assert out == "True\n"


@forks
def test_each_process_keeps_to_one_core_and_starts_no_threads():
    out = said("""
        import numpy as np
        from threadpoolctl import threadpool_info
        square = np.ones((400, 400))
        def work(_):
            square @ square
            return os.getpid() != parent, len(os.listdir("/proc/self/task"))
        def limits():
            return [library["num_threads"] for library in threadpool_info()]
        before = limits()
        print(set(parallel.each(work, range(6), 0)), limits() == before)
    """)
    assert out == "{(True, 1)} True\n"


@forks
def test_a_result_that_cannot_be_handed_over_is_made_here():
    out = said("print([make() for make in parallel.each(lambda item: lambda: item, range(5), 1)])")
    assert out == "[0, 1, 2, 3, 4]\n"


@forks
def test_a_process_that_dies_while_it_hands_over_is_not_waited_for():
    out = said(
        """
        from multiprocessing.connection import Connection
        write = Connection._send
        def half(self, data, *more):
            if os.getpid() != parent and len(data) > 1_000_000:
                write(self, data[: len(data) // 2], *more)
                os.kill(os.getpid(), signal.SIGKILL)
            write(self, data, *more)
        Connection._send = half
        print([len(found) for found in parallel.each(lambda item: b"x" * 10_000_000, range(3), 1)])
        """,
        within=60,
    )
    assert out == "[10000000, 10000000, 10000000]\n"


@forks
def test_many_items_are_shared_out_in_larger_chunks():
    assert said("print(parallel.each(lambda item: -item, range(2500), 1) == list(range(0, -2500, -1)))") == "True\n"


@forks
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"])
def test_a_process_that_dies_costs_time_only(end):
    out = said(f"""
        def work(item):
            if os.getpid() != parent and item == 7:
                {end}
            return item
        print(parallel.each(work, range(10), 1) == list(range(10)))
    """)
    assert out == "True\n"


ENDLESS = """
def work(item):
    print(os.getpid(), flush=True)
    time.sleep(60 if os.getpid() != parent else 0)
parallel.each(work, range(2), 1)
"""


def gone(pid: int, within: float = 20) -> bool:
    """Whether a process ends in time; one that nobody waited for is a zombie."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@forks
def test_no_process_outlives_the_one_it_works_for():
    process = start(ENDLESS)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    assert gone(pid)
    process.communicate(timeout=60)


@forks
def test_control_c_is_one_error_of_the_caller():
    process = start(ENDLESS.replace("60", "2 * item"))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    time.sleep(0.5)  # one of the two has nothing to do now
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert err.count("Traceback") == 1 and err.endswith("KeyboardInterrupt\n")


@forks
def test_control_c_ends_work_in_hand_and_lets_it_tidy_up(tmp_path):
    process = start(
        """
        from ltrobust_bench.files import atomic_path
        from pathlib import Path

        def work(item):
            with atomic_path(Path(sys.argv[1]) / str(item)):
                print(flush=True)
                time.sleep(60)
        parallel.each(work, range(8), 1)
        """,
        str(tmp_path),
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)  # to the caller only
    _, err = process.communicate(timeout=20)
    assert process.returncode != 0 and err.endswith("KeyboardInterrupt\n")
    assert list(tmp_path.iterdir()) == []


@forks
@pytest.mark.parametrize("where", ["before", "after_in_child", "after_in_parent"])
def test_control_c_while_processes_start_is_one_error_of_the_caller(where):
    out = said(f"""
        from multiprocessing import active_children
        os.register_at_fork({where}=lambda: os.kill(0, signal.SIGINT))  # to all
        try:
            parallel.each(lambda item: item, range(5), 1)
        except KeyboardInterrupt:
            print(all(process.join(20) is None and not process.is_alive() for process in active_children()))
    """)
    assert out == "True\n"


STUBBORN = """
class Stubborn:
    def __del__(self):
        time.sleep(0.3)  # an error in here is swallowed, the one that is to end the process, too

def work(item):
    for _ in range(4):
        Stubborn()
    print(os.getpid(), flush=True)
    return b"z" * 1_000_000
"""


@forks
def test_a_process_that_swallows_its_end_keeps_nobody_waiting():
    process = start(STUBBORN + "parallel.each(work, range(50), 1)")
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)  # they are at what they swallow errors in
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=parallel.GRACE / 2)
    assert process.returncode != 0 and err.endswith("KeyboardInterrupt\n")


@forks
def test_a_process_that_ignores_its_end_is_killed():
    out = said(
        """
        parallel.GRACE = 0.2
        def work(item):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.kill(parent, signal.SIGINT)
            time.sleep(60)
        try:
            parallel.each(work, range(4), 1)
        except KeyboardInterrupt:
            print("interrupted")
    """,
        within=20,
    )
    assert out == "interrupted\n"


@forks
def test_processes_do_not_outlive_the_one_that_they_work_for():
    process = start(STUBBORN + "parallel.each(work, range(50), 1)")
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)  # they are at what they swallow errors in
    process.kill()
    rest, _ = process.communicate(timeout=20)  # none of them writes to it any more
    assert len(rest.split()) < 10


@forks
def test_an_end_that_the_caller_blocks_reaches_its_processes():
    out = said(
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        class Odd:
            def __reduce__(self):
                return exec, ("raise ValueError('odd')",)
        try:
            parallel.each(lambda item: (Odd() if item == 0 else None, b"z" * 2_000_000), range(8), 1)
        except ValueError as error:
            print(error, signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """,
        within=parallel.GRACE / 2,
    )
    assert out == "odd True\n"


@forks
def test_without_pipes_the_work_is_done_here():
    out = said("""
        def none():
            raise OSError(24, "Too many open files")
        os.pipe = none
        print(set(parallel.each(lambda _: os.getpid(), range(5), 1)) == {parent})
    """)
    assert out == "True\n"


@pytest.mark.parametrize("chunk", [1, 4])
def test_an_end_of_iteration_in_the_work_is_an_error_and_not_the_end(chunk):
    with pytest.raises(StopIteration):
        parallel.each(lambda item: next(iter(())) if item == 1 else item, range(4), 0, chunk)


@forks
def test_a_board_is_the_same_byte_by_byte(tmp_path):
    """The committed records and a damaged file."""
    out = said(
        """
        from pathlib import Path
        from ltrobust_bench.records.validate import validate
        from ltrobust_bench.report import aggregate, leaderboard, read_records

        records, output = Path(sys.argv[1]), Path(sys.argv[2])
        damaged = output / "damaged.json"
        damaged.write_text("{")

        def everything(least):
            parallel.LEAST = least
            made = leaderboard([records, damaged], output / str(least), figures=False)
            found, _ = read_records([records])
            runs = [run for board in aggregate.boards(found) for entry in board.entries for run in entry.runs]
            assert all(any(run is record for record in found) for run in runs)
            texts = [path.read_text() for path in made.written]
            problems = [str(problem) for problem in validate([records, damaged]).problems]
            return texts, made.messages, made.damaged, found, [run.id for run in runs], problems

        forked, safe = [], parallel._safe
        parallel._safe = lambda: forked.append(safe()) or forked[-1]
        shared, alone = everything(0), everything(1e9)
        assert shared == alone
        print(len(shared[3]), shared[2], len(shared[5]), sum(forked))
        """,
        str(RECORDS),
        str(tmp_path),
    )
    records, damaged, problems, forked = map(int, out.split())
    assert records > 100 and damaged == 1 and problems >= 1
    assert forked >= 5  # reading and tables twice, checks; boards where there is more than one


def test_records_come_through_pickling_as_they_are():
    import pickle

    from ltrobust_bench.records.io import dumps, read_record

    record = read_record(next(RECORDS.rglob("*.json")))
    again = pickle.loads(pickle.dumps(record))
    assert again == record and dumps(again) == dumps(record) and again.id == record.id
    assert again.run.model_fields_set == record.run.model_fields_set
    with pytest.raises(ValueError, match="frozen"):
        again.run.seed = 1


def test_here_it_is_done_in_this_process(monkeypatch):
    monkeypatch.setattr(parallel, "LEAST", 0)
    assert parallel.each(str, iter(range(3)), 1) == ["0", "1", "2"]
