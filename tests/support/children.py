"""Processes that tests start without waiting for torch to be imported: they are forked from one that has imported it and
has done nothing else.  Those of multiprocessing's fork server would know a parent process, by which gpuaug tells loader
workers and children from a main process; these are main processes.

What a fresh interpreter alone can show (what an import loads, what ends it, Ctrl-C while it imports) is for
subprocess."""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

# read when torch is loaded, which has happened before a child is there
READ_EARLY = ("OMP_NUM_THREADS", "LD_LIBRARY_PATH", "LD_PRELOAD")


class Child:
    """A process as subprocess.Popen has it; its outputs are files, which never fill up."""

    def __init__(self, command: Sequence[Any], env: Mapping[str, str] | None = None, cwd: Any = None):
        self.args = [str(part) for part in command]
        self.returncode: int | None = None
        self._open: list[Any] = []
        env = dict(os.environ if env is None else env)
        for name in READ_EARLY:
            assert env.get(name) == os.environ.get(name), f"{name} is read when torch is imported: use subprocess"
        interpreter, *arguments = self.args
        assert interpreter == sys.executable, "only Python is forked"
        self._outputs = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
        status, theirs = os.pipe()
        self._status = os.fdopen(status, "rb", buffering=0)
        self._open = [*self._outputs, self._status]
        about = {"arguments": arguments, "env": env, "cwd": os.fspath(cwd or os.getcwd())}
        files = [*(f.fileno() for f in self._outputs), theirs]
        socket.send_fds(fork_server(), [json.dumps(about).encode()], files)
        os.close(theirs)
        self.pid = int(self._said())

    def _said(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            more = self._status.read(1)
            assert more, "the process that forks is gone"
            line += more
        return line

    def poll(self) -> int | None:
        """The exit status, minus the signal that ended it, or None while it runs."""
        return self._ended(0)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._said()))
            self._status.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to stdout and to stderr, once it has ended."""
        self.wait(timeout)
        for file in self._outputs:
            file.seek(0)
        out, error = (file.read().decode(errors="replace") for file in self._outputs)
        return out, error

    def __del__(self) -> None:
        for file in self._open:
            file.close()


def run(
    command: Sequence[Any], *, env: Mapping[str, str] | None = None, cwd: Any = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """subprocess.run of a Python command (-c, -m or a file), with its outputs as text."""
    if sys.platform != "linux":
        return subprocess.run(
            [*map(str, command)], env=env, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
        )
    child = Child(command, env, cwd)
    try:
        out, error = child.communicate(timeout)
    finally:
        child.kill()
        child.wait()
    return subprocess.CompletedProcess(child.args, child.wait(), out, error)


@cache
def fork_server() -> socket.socket:
    """The socket on which this process asks for children.  The process that forks them ends when it is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def over() -> None:
        ours.close()
        server.wait()

    atexit.register(over)
    return ours


# ---- the process that forks


def serve(control: socket.socket) -> None:
    import torch  # noqa: F401

    # what is there is never collected, so that no child copies its pages
    gc.collect()
    gc.freeze()
    began, woken = socket.socketpair()
    began.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(began.fileno(), warn_on_full_buffer=False)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(1000)
            for pid in list(running):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    tell(running.pop(pid), status)
        if control in ready:
            message, files, _, _ = socket.recv_fds(control, 1 << 20, 3)
            if not message:
                signal.set_wakeup_fd(-1)
                return
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (control, began, woken):
                    one.close()
                for kept in (files[2], *running.values()):
                    os.close(kept)
                run_child(json.loads(message), files[:2])
            for file in files[:2]:
                os.close(file)
            running[pid] = files[2]
            os.write(files[2], b"%d\n" % pid)


def tell(file: int, status: int) -> None:
    try:
        os.write(file, b"%d\n" % status)
    except BrokenPipeError:
        # nobody asks any more
        pass
    os.close(file)


def run_child(about: dict[str, Any], outputs: list[int]) -> NoReturn:
    """The child's life, as an interpreter with these arguments has it."""
    for number, file in enumerate(outputs, 1):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    base = [p for p in sys.path[1:] if p not in before]
    os.environ.clear()
    os.environ.update(about["env"])
    os.chdir(about["cwd"])
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    kind, *rest = about["arguments"]
    sys.orig_argv = [sys.executable, kind, *rest]
    first = os.getcwd() if kind == "-m" else "" if kind.startswith("-") else os.path.dirname(os.path.abspath(kind))
    sys.path[:] = [first, *paths, *base]
    for name in [n for n, module in sys.modules.items() if getattr(module, "__file__", None) == __file__]:
        del sys.modules[name]
    run_to_end(lambda: execute(kind, rest))


def execute(kind: str, rest: list[str]) -> None:
    if kind == "-W":
        warnings.simplefilter(rest[0])
        kind, *rest = rest[1:]
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = ModuleType("__main__")
    if kind == "-c":
        code, sys.argv = compile(rest[0], "<string>", "exec"), ["-c", *rest[1:]]
    else:
        assert not kind.startswith("-"), f"{kind}: use subprocess"
        sys.argv, main.__file__ = [kind, *rest], kind
        code = compile(Path(kind).read_bytes(), kind, "exec")
    exec(code, main.__dict__)


def run_to_end(what: Any) -> NoReturn:
    """Run it and end as an interpreter does, but for taking its modules apart."""
    code = 0
    try:
        what()
    except SystemExit as said:
        code = said.code if isinstance(said.code, int) else 0 if said.code is None else 1
        if said.code is not None and not isinstance(said.code, int):
            print(said.code, file=sys.stderr)
    except BaseException as fault:
        traceback.print_exc()
        code = -signal.SIGINT if isinstance(fault, KeyboardInterrupt) else 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        time.sleep(60)
    os._exit(code & 255)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
