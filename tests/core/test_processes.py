import os
import signal
import subprocess
import sys
import time
from operator import methodcaller

from lookalike.core.processes import start_process

SCRIPT = """
from operator import methodcaller
from lookalike.core.processes import start_process
print("once", flush=True)
process, pipe = start_process(methodcaller("send", {"of": "it"}))
print(pipe.recv())
process.join()
print(process.exitcode)
"""


def test_a_script_without_a_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["once", "{'of': 'it'}", "0"]
    assert not done.stderr


def test_the_main_module_is_back_afterwards():
    main, before = sys.modules["__main__"], signal.pthread_sigmask(signal.SIG_BLOCK, set())
    process, _ = start_process(methodcaller("close"))
    process.join()
    assert sys.modules["__main__"] is main
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before


def test_it_hears_no_interrupt():
    process, pipe = start_process(methodcaller("recv"))
    for _ in range(20):  # at any moment of its start
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.02)
    pipe.send("go on")
    process.join(30)
    assert process.exitcode == 0


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_ends_with_its_parent():
    code = (
        "import os; from operator import methodcaller; from lookalike.core.processes import start_process\n"
        "process, _ = start_process(methodcaller('poll', None)); print(process.pid, flush=True); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    for _ in range(100):
        if not is_there(pid):
            break
        time.sleep(0.1)
    assert not is_there(pid)
