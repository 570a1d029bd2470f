"""Functions compiled by Numba whose machine code is kept on disk where that is possible; where it is not, they still
run.

Processes that start together wait for one another: one compiles, the others load what it kept.
"""

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numba
from gpuaug_kernels import codes
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
from numba.core.codegen import JITCodeLibrary
from torch.utils.data import get_worker_info

try:
    import fcntl
except ImportError:
    # no such lock on Windows: there processes compile beside one another
    fcntl = None  # type: ignore[assignment]

_ROOT = Path(__file__).parent
# seconds after which a compile says what it does, and after which nobody waits for another process any longer
_SILENT, _PATIENCE = 2.0, 300.0
# names of functions that are only ever parts of an entry point
_parts: set[str] = set()


def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A part of an entry point: never called by Python, so that it needs no way in, and it allocates nothing."""

    def decorate(function: Callable[..., Any]) -> Any:
        _parts.add(function.__qualname__)
        return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", _nrt=False, **options)(
            function
        )

    return decorate if function is None else decorate(function)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled entry point that releases the GIL.  What it calls is compiled into it and needs no cache of its
    own."""
    # a division by 0 gives what it gives in C, without a test that would keep loops from being vectorised
    dispatcher = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    kept = None
    # where no folder can be written it is compiled again in every process
    with suppress(RuntimeError, OSError):
        kept = dispatcher._cache = _Kept(function)
    compile_it = dispatcher._compiler.compile

    def compile_once(*arguments: Any) -> Any:
        # Numba comes here, holding its own lock, where nothing was kept
        with _announced(kept), _parts_unfinished(dispatcher.targetctx.codegen()):
            return compile_it(*arguments)

    def compile_or_load(signature: Any) -> Any:
        _import_arrays()
        try:
            return type(dispatcher).compile(dispatcher, signature)
        finally:
            if kept is not None:
                kept.release()

    dispatcher._compiler.compile, dispatcher.compile = compile_once, compile_or_load
    return dispatcher  # type: ignore[no-any-return]


@cache
def _import_arrays() -> None:
    """Import Numba's functions of arrays, which at its first compile or load would import SciPy's linear algebra, only
    to see whether it is there: a third of the time of a loader's first batch.  What uses it imports it."""
    if "numba.np.arraymath" in sys.modules or find_spec("scipy") is None:
        return
    with suppress(ImportError, AttributeError):
        linalg: Any = import_module("numba.np.linalg")
        ensure = linalg.ensure_blas
        try:
            linalg.ensure_blas = lambda: None
            import_module("numba.np.arraymath")
        finally:
            linalg.ensure_blas = ensure


class _BySources(UserProvidedCacheLocator):  # type: ignore[misc]
    """A place in the folder that NUMBA_CACHE_DIR names, the same for the same sources wherever they lie.

    Numba names it by the path of the sources, so that a fresh checkout elsewhere would compile again.
    """

    def __init__(self, function: Callable[..., Any], file: str):
        super().__init__(function, file)
        self._cache_path = str(Path(config.CACHE_DIR) / f"{Path(file).parent.name}_{_sources()}")


class _Places(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_BySources, *CompileResultCacheImpl._locator_classes]


class _Kept(FunctionCache):  # type: ignore[misc]
    """Numba's cache, but stale when any compiled source changes, and silent when the disk is full or a file is
    broken."""

    _impl_class = _Places

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function)
        self._cache_file._source_stamp = _sources()
        self._lock: IO[bytes] | None = None

    def load_overload(self, *arguments: Any) -> Any:
        """What was kept; where nothing was, this process may compile when it returns, and no other until `release`."""
        found = self._load(*arguments)
        if found is None:
            self._acquire()
            found = self._load(*arguments)
        return found

    def _load(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except Exception:
            # a full disk, or an index that cannot be read
            pass

    def _acquire(self) -> None:
        """Wait until no other process compiles.  Locks of the system end with the process that holds them, however it
        ends."""
        if fcntl is None or self._lock is not None:
            return
        until = time.monotonic() + _PATIENCE
        # no folder, no right to write, or a file system without locks: nobody waits
        with suppress(OSError):
            self._impl.locator.ensure_cache_path()
            self._lock = (Path(self.cache_path) / f"{self._impl.filename_base}.lock").open("ab")
            while True:
                try:
                    fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except (BlockingIOError, PermissionError):
                    if time.monotonic() > until:
                        return
                    time.sleep(0.02)

    def release(self) -> None:
        """Let another process compile, or load."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


@contextmanager
def _announced(kept: _Kept | None) -> Iterator[None]:
    """Say on stderr what is waited for, once it has taken long.  Of workers that have no place to keep it, the first
    says it for all."""
    worker = get_worker_info()
    place = (
        "not kept: no folder can be written, so that every process compiles; set NUMBA_CACHE_DIR"
        if kept is None
        else f"kept in {kept.cache_path}"
    )
    text = f"gpuaug: compiling its CPU kernels, once per machine and version (some 10 to 30 s); {place}"
    timer = threading.Timer(_SILENT, _say, (text,))
    timer.daemon = True
    if worker is None or worker.id == 0 or kept is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        # no thread is left, not even one that is about to print
        if timer.ident is not None:
            timer.join()


@cache
def _say(text: str) -> None:
    """Print a line on stderr, but never twice."""
    print(text, file=sys.stderr, flush=True)


class _Unfinished(JITCodeLibrary):  # type: ignore[misc]
    """The code of a part: optimised as a whole and made machine code where it is linked into an entry point, not
    before.

    Numba does both for every function by itself, and again for every function that calls it.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0


@contextmanager
def _parts_unfinished(codegen: Any) -> Iterator[None]:
    """While an entry point is compiled, under Numba's lock: parts are linked into it as they are."""
    if not hasattr(codegen, "_library_class") or not hasattr(JITCodeLibrary, "_optimize_final_module"):
        yield
        return
    usual, set_env = codegen._library_class, codegen.set_env

    def create(owner: Any, name: str, **options: Any) -> Any:
        return (_Unfinished if name in _parts else usual)(owner, name, **options)

    def set_known(name: str, env: Any) -> None:
        # of constants of Python that a function names when it raises: parts raise nothing, and have no place for them
        if codegen._engine.get_global_value_address(name):
            set_env(name, env)

    codegen._library_class, codegen.set_env = create, set_known
    try:
        yield
    finally:
        del codegen._library_class, codegen.set_env


@cache
def _sources() -> str:
    """A digest of every file that is compiled: Numba itself looks at the entry point's file only."""
    return hashlib.sha256(b"".join(f.read_bytes() for f in compiled_files())).hexdigest()


def compiled_files() -> list[Path]:
    """Every file of whose functions or numbers machine code is made."""
    return [
        Path(__file__),
        Path(codes.__file__),
        _ROOT / "rng" / "host.py",
        _ROOT / "data" / "scan.py",
        *sorted((_ROOT / "trace").glob("*.py")),
        *sorted((_ROOT / "exec" / "cpu").glob("*.py")),
        _ROOT / "exec" / "triton" / "compiled.py",
    ]
