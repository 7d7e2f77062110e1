"""The privileges that a decoder's process drops before it reads a byte of an upload.

Ordered by how little kernel support they need:

1. RLIMIT_NOFILE of 0: open descriptors stay usable, and no call can create another, for a file, a socket, a pipe or a
   memory file, whatever code runs. Memory, CPU time and the size of outputs have limits too.
2. Its own memory and the function's are closed to other processes (PR_SET_DUMPABLE): a process of the same user could
   read and write them with process_vm_readv and ptrace, which take no descriptor.
3. If it runs as root (the local cloud, containers), it becomes the user nobody.
4. A system call filter (seccomp) allows only the calls that decoding needs. It also blocks what needs no descriptor:
   signals, other processes' memory, new processes and programs, paths, shared memory, executable memory, and most
   kernel code.

A kernel may refuse all but the first (LAYERS). The server probes them at start, the function's log says which are
missing, and the others work without them. Lambda refuses prctl: with it go closed memory, and the means to end what
outlives its parent. The filter remains if the system itself forbids new privileges.
"""

import ctypes
import errno
import math
import os
import resource
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final

NOBODY: Final = 65534
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_INSTRUCTION_BYTES: Final = 8
_SIGKILL: Final = 9

ALLOWED: Final = (
    # what is open
    *("read", "readv", "pread64", "write", "writev", "pwrite64", "lseek", "ftruncate", "close"),
    # memory; mmap and mprotect have conditions
    *("brk", "munmap", "mremap", "madvise"),
    # threads; clone has a condition
    *("futex", "set_robust_list", "rseq", "sched_getaffinity", "sched_yield", "exit", "gettid", "getpid"),
    # time, chance, the end
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "getrandom", "exit_group"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
)
_CLONE_THREAD: Final = 0x10000
_PROT_EXEC: Final = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """Resource limits of one child.

    Attributes:
        memory: bytes of private memory (RLIMIT_DATA).
        output_bytes: bytes of any one file.
        seconds: CPU time.
    """

    memory: int
    output_bytes: int
    seconds: float


def close_memory() -> None:
    """Stops other processes of this user from accessing this one's memory or environment. Forks inherit it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def supervise() -> None:
    """Closes the server's memory, and makes it the reaper of its descendants' orphans, so that none escapes."""
    close_memory()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def confine(bounds: Bounds, missing: Mapping[str, int]) -> None:
    """Drops all privileges permanently. Raises OSError if a layer fails that is not known to be missing."""
    if "another user" not in missing:
        _leave_root()
    _limit(bounds)
    if "prctl" not in missing:
        _end_with_parent()  # a change of user resets it
    if "seccomp" not in missing:
        _filter_calls()


def probe() -> dict[str, int]:
    """The layers that this kernel lacks or refuses, with the errno. Tries each in a separate process."""
    call_filter()
    return {name: number for name, layer in LAYERS.items() if (number := _tried(layer))}


def _tried(layer: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            layer()
        except OSError as error:
            os._exit(error.errno or errno.EINVAL)
        except BaseException:  # noqa: BLE001 - a fork of the server must not continue as a second server
            os._exit(errno.EINVAL)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _limit(bounds: Bounds) -> None:
    seconds = math.ceil(bounds.seconds)
    for limit, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_DATA, bounds.memory, bounds.memory),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_FSIZE, bounds.output_bytes, bounds.output_bytes),
        (resource.RLIMIT_NOFILE, 0, 0),
    ):
        resource.setrlimit(limit, (soft, hard))


def _end_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def _supervise_and_end() -> None:
    """All that needs prctl: a system may refuse some of its options only."""
    supervise()
    _end_with_parent()


def _leave_root() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _filter_calls() -> None:
    from seccompy import syscall_nr

    program = call_filter()
    header = _Program(len(program) // _INSTRUCTION_BYTES, program)
    with suppress(PermissionError):  # the system may have set it; if not, it refuses the filter
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if _libc().syscall(syscall_nr("seccomp"), _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(header)):
        raise OSError(ctypes.get_errno(), "seccomp")


class _Program(ctypes.Structure):
    """sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


@cache
def call_filter() -> bytes:
    """The filter in the kernel's format. Other calls fail with EPERM, which libraries can handle."""
    from seccompy import Action, ArgCmp, CmpOp, Filter  # only in the server: the function never loads it

    made = Filter(default=Action.ERRNO | errno.EPERM)
    for name in ALLOWED:
        made.allow(name)
    made.allow("clone", args=[ArgCmp(0, CmpOp.MASKED_EQ, _CLONE_THREAD, mask=_CLONE_THREAD)])
    made.errno("clone3", errno.ENOSYS)  # its flags are behind a pointer: glibc falls back to clone
    for name in ("mmap", "mprotect"):
        made.allow(name, args=[ArgCmp(2, CmpOp.MASKED_EQ, 0, mask=_PROT_EXEC)])
    return made.program


LAYERS: Final[Mapping[str, Callable[[], None]]] = {
    "prctl": _supervise_and_end,
    "another user": _leave_root,
    "seccomp": _filter_calls,
}


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc().prctl(option, ctypes.c_ulong(value), None, None, None):
        raise OSError(ctypes.get_errno(), f"prctl {option}")
