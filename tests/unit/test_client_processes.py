"""A `MobileClient` in forked and started processes, and when the program ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.domain import State
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from tests.support.commands import environment
from tests.support.paths import BUNDLE, free_ports
from tests.support.silent_tier import SilentTier

END_S = 120.0
BEGIN = """
import asyncio, multiprocessing, os, signal, sys, threading
from mobile_client import ClientUnusable, DimeeError, MobileClient, RequestOptions

TEXT = "a wonderful film"

def error_of(work):
    try:
        work()
    except DimeeError as error:
        return f"{type(error).__name__}: {error.message}"

"""


def run_script(
    folder: Path, script: str, status: int = 0, **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and check its status."""
    done = subprocess.run(
        [sys.executable, write_script(folder, script)],
        env=script_environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=END_S,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def write_script(folder: Path, script: str) -> Path:
    file = folder / "program.py"
    file.write_text(BEGIN + script)
    return file


def script_environment(folder: Path, **settings: object) -> dict[str, str]:
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    urls = dict.fromkeys(("ledger_url", "edge_url", "cloud_url"), nowhere)
    return environment(
        urls | {"bundle": BUNDLE, "state_dir": folder / "state", "policy": "mobile"} | settings
    )


def recorded(folder: Path) -> list[LedgerEntry]:
    """Return the entries of the mobile's outbox, which nothing may hold any more."""
    outbox = Outbox.claim(folder / "state" / "mobile", "mobile")
    try:
        rows = outbox.pending(10_000)
        return [LedgerEntry.model_validate_json(row[3]) for row in rows]
    finally:
        outbox.close()


FORKS = """
def in_child():
    print(error_of(lambda: mobile.classify(TEXT)))
    print(error_of(lambda: mobile.classify_many([TEXT])))
    print(error_of(lambda: asyncio.run(mobile.aclassify(TEXT))))
    mobile.close()
    asyncio.run(mobile.aclose())
    with MobileClient() as own:
        print(own.classify(TEXT).label, flush=True)

mobile = MobileClient()
mobile.classify(TEXT)
"""


def forked_output(done: subprocess.CompletedProcess[str]) -> list[str]:
    *errors, label, parent = done.stdout.splitlines()
    assert len(errors) == 3
    for error in errors:
        assert error.startswith("ClientUnusable: the client was created in process ")
        assert error.endswith("create one in each process, after the fork")
    return [label, parent]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "del mobile; sys.exit(0)"])
def test_forked_child_gets_an_error_and_may_create_its_own(
    tmp_path: Path, end: str, threads: int
) -> None:
    script = f"""
child = os.fork()
if child == 0:
    in_child()
    {end}
assert os.waitpid(child, 0)[1] == 0
print(mobile.classify(TEXT).label)
mobile.close()
"""
    done = run_script(tmp_path, FORKS + script, threads=threads)
    assert forked_output(done) == ["positive", "positive"]
    assert done.stderr == ""
    assert len(recorded(tmp_path)) == 6


def test_child_of_a_child_keeps_its_files(tmp_path: Path) -> None:
    script = """
mobile = MobileClient()
child = os.fork()
if child == 0:
    own = os.open(os.devnull, os.O_RDONLY)  # takes the number of the lock that was closed
    grandchild = os.fork()
    if grandchild == 0:
        os.fstat(own)
        print(error_of(lambda: mobile.classify(TEXT)), flush=True)
        os._exit(0)
    os._exit(os.waitpid(grandchild, 0)[1] >> 8)
assert os.waitpid(child, 0)[1] == 0
mobile.close()
"""
    done = run_script(tmp_path, script)
    assert done.stdout.startswith("ClientUnusable: the client was created in process ")
    assert done.stderr == ""


def test_pool_of_forked_processes_gets_an_error(tmp_path: Path) -> None:
    script = """
def work(text):
    return error_of(lambda: mobile.classify(text))

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*set(pool.map(work, [TEXT] * 8, chunksize=1)), sep="\\n")
print(error_of(lambda: multiprocessing.get_context("fork").Pool(1).map(mobile.classify, [TEXT])))
print(mobile.classify(TEXT).label)
"""
    done = run_script(tmp_path, FORKS + script)
    forked, sent, label = done.stdout.splitlines()
    assert forked.startswith("ClientUnusable: the client was created in process ")
    assert sent.startswith("ClientUnusable: a MobileClient cannot be copied or sent")
    assert label == "positive"
    assert len(recorded(tmp_path)) == 4


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_started_process_creates_its_own(tmp_path: Path, method: str) -> None:
    script = """
def work(text):
    with MobileClient() as own:
        return own.classify(text).label

if __name__ == "__main__":
    mobile = MobileClient()
    context = multiprocessing.get_context(sys.argv[-1] if len(sys.argv) > 1 else METHOD)
    print(error_of(lambda: context.Process(target=print, args=(mobile,)).start()))
    with context.Pool(1) as pool:
        print(pool.apply(work, (TEXT,)))
    mobile.close()
"""
    done = run_script(tmp_path, f"METHOD = {method!r}\n" + script)
    sent, label = done.stdout.splitlines()
    assert sent.startswith("ClientUnusable: a MobileClient cannot be copied or sent")
    assert label == "positive"


def test_child_that_outlives_its_parent_holds_no_outbox(tmp_path: Path) -> None:
    """The child inherits the file descriptor of the outbox's lock."""
    script = """
child = os.fork()
if child == 0:
    print("forked", flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, write_script(tmp_path, FORKS + script)],
        env=script_environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline() == "forked\n"
        parent.kill()
        parent.wait(END_S)
        assert len(recorded(tmp_path)) == 2
        assert {file.name for file in (tmp_path / "state/mobile").glob("*.lock")} == {
            "outbox-0.lock"
        }
        parent.stdin.close()


def test_program_that_does_not_close_its_client_ends(tmp_path: Path) -> None:
    done = run_script(tmp_path, "mobile = MobileClient()\nprint(mobile.classify(TEXT).label)\n")
    assert (done.stdout, done.stderr) == ("positive\n", "")
    assert {entry.state for entry in recorded(tmp_path)} == {State.ANSWERED}


def test_threads_may_classify_after_the_main_thread_has_ended(tmp_path: Path) -> None:
    script = """
main_ended = threading.Event()

def work():
    main_ended.wait()
    threading.main_thread().join()
    print(mobile.classify(TEXT).label)
    print(asyncio.run(mobile.aclassify(TEXT)).label)

mobile = MobileClient()
threading.Thread(target=work).start()
main_ended.set()
"""
    done = run_script(tmp_path, script)
    assert (done.stdout, done.stderr) == ("positive\npositive\n", "")


def test_daemon_threads_in_flight_do_not_delay_the_end(tmp_path: Path) -> None:
    script = """
def work():
    line = error_of(lambda: mobile.classify(TEXT))
    os.write(1, (line + os.linesep).encode())

mobile = MobileClient()
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
sys.stdin.read()
"""
    with SilentTier() as cloud:
        settings = {"policy": "cloud", "cloud_url": cloud.url, "deadline_ms": 60_000}
        with subprocess.Popen(
            [sys.executable, write_script(tmp_path, script)],
            env=script_environment(tmp_path, **settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            cloud.wait_for(3)
            out, err = program.communicate("", timeout=END_S)
    assert program.returncode == 0
    assert err == ""
    assert set(out.splitlines()) <= {"ClientUnusable: the client is closed; create a new one"}
    assert [entry.state for entry in recorded(tmp_path)] == [State.ABANDONED] * 3


@pytest.mark.parametrize("call", ["mobile.classify(TEXT)", "asyncio.run(mobile.aclassify(TEXT))"])
def test_ctrl_c_ends_a_call_and_the_program(tmp_path: Path, call: str) -> None:
    script = f"""
signal.signal(signal.SIGINT, signal.default_int_handler)
with MobileClient() as mobile:
    try:
        {call}
    except KeyboardInterrupt:
        print("interrupted", mobile.classify(TEXT, options=RequestOptions("mobile")).label)
"""
    with SilentTier() as cloud:
        settings = {"policy": "cloud", "cloud_url": cloud.url, "deadline_ms": 60_000}
        with subprocess.Popen(
            [sys.executable, write_script(tmp_path, script)],
            env=script_environment(tmp_path, **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            cloud.wait_for(1)
            program.send_signal(signal.SIGINT)
            out, err = program.communicate(timeout=END_S)
    assert (out, err, program.returncode) == ("interrupted positive\n", "", 0)
    states = sorted(entry.state.value for entry in recorded(tmp_path))
    assert states == ["abandoned", "answered", "answered"]


def test_fork_beside_calls_in_flight(tmp_path: Path) -> None:
    script = """
def work():
    os.write(1, (error_of(lambda: mobile.classify(TEXT)) + os.linesep).encode())

mobile = MobileClient()
threading.Thread(target=work).start()
sys.stdin.readline()
child = os.fork()
if child == 0:
    assert error_of(lambda: mobile.classify(TEXT)).startswith("ClientUnusable")
    del mobile
    sys.exit(0)
print(os.waitpid(child, 0)[1], flush=True)
mobile.close()
"""
    with SilentTier() as cloud:
        settings = {"policy": "cloud", "cloud_url": cloud.url, "deadline_ms": 60_000}
        with subprocess.Popen(
            [sys.executable, "-X", "dev", write_script(tmp_path, script)],
            env=script_environment(tmp_path, **settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            cloud.wait_for(1)
            out, err = program.communicate("\n", timeout=END_S)
    assert out.splitlines() == ["0", "ClientUnusable: the client is closed; create a new one"]
    assert "was destroyed but it is pending" not in err
    assert [entry.state for entry in recorded(tmp_path)] == [State.ABANDONED]


def test_gateway_that_is_loaded_before_a_fork_says_so(tmp_path: Path) -> None:
    script = """
import httpx
from mobile_client.gateway.app import create_app
from mobile_client.settings import MobileSettings

app = create_app(MobileSettings())

async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://m") as http:
        answer = await http.post("/v1/classify", json={"texts": [TEXT]})
        print(answer.status_code, answer.json()["error"]["code"])

async def start():
    async with app.router.lifespan_context(app):
        print("started")

child = os.fork()
if child == 0:
    asyncio.run(ask())
    print(error_of(lambda: asyncio.run(start())), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    answer, start = run_script(tmp_path, script).stdout.splitlines()
    assert answer == "503 client_unusable"
    assert start.startswith("ClientUnusable: the client was created in process ")


def test_import_starts_and_registers_nothing(tmp_path: Path) -> None:
    script = """
import mobile_client.service_thread, shared.process_bound
print(threading.active_count(), shared.process_bound._registered)
"""
    assert run_script(tmp_path, script).stdout == "1 False\n"
