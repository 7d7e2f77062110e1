"""An attacker who controls a decoder: their code runs in the confined child, and reaches nothing.

Each attack is tried with nothing given up, where it must succeed, or it would prove nothing; with all layers; without
those that a kernel may lack; and without those that need prctl, which Lambda refuses.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import sandbox
import social
from tests.support.patience import PATIENCE

MODULES = os.pathsep.join(str(Path(str(package.__file__)).parents[1]) for package in (sandbox, social))

# The process that is attacked holds a secret, has a child as the sandbox's server has, and tells how that fared.
SCRIPT = """
import ctypes, errno, json, mmap, os, signal, socket, subprocess, sys
from pathlib import Path
import seccompy
from sandbox import confinement

layers, place = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
secret = ctypes.create_string_buffer(b"credentials")
address, parent = ctypes.addressof(secret), os.getpid()
SYS = {"x86_64": {"readv": 310, "writev": 311}, "aarch64": {"readv": 270, "writev": 271}}[os.uname().machine]

class Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

def checked(result):
    if result in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def other_memory(call):
    mine = ctypes.create_string_buffer(b"overwritten")
    here, there = Vector(ctypes.addressof(mine), 11), Vector(address, 11)
    checked(libc.syscall(call, parent, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))

def new_process():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

def raised_limit():
    checked(libc.setrlimit(7, ctypes.byref((ctypes.c_ulong * 2)(64, 64))))  # RLIMIT_NOFILE
    os.close(os.open("/", os.O_RDONLY))

ATTACKS = {
    "open a file": lambda: os.close(os.open("/etc/hostname", os.O_RDONLY)),
    "list a folder": lambda: os.listdir("/"),
    "read the function's environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
    "open a socket": lambda: socket.socket().close(),
    "make a pipe": lambda: os.pipe(),
    "copy a descriptor": lambda: os.dup(1),
    "make a memory file": lambda: os.memfd_create("x"),
    "raise a limit": raised_limit,
    "read the function's memory": lambda: other_memory(SYS["readv"]),
    "write the function's memory": lambda: other_memory(SYS["writev"]),
    "trace the function": lambda: checked(libc.ptrace(0x4206, parent, None, None)),
    "end the function": lambda: os.kill(parent, 0),
    "start a process": new_process,
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "remove a file": lambda: os.unlink(place),
    "rename a file": lambda: os.rename(place, place + "2"),
    "make a link": lambda: os.symlink("/etc/hostname", place + "3"),
    "share memory": lambda: checked(libc.shmget(0, 4096, 0o1666)),
    "run data as code": lambda: checked(libc.mmap(None, 4096, 7, 0x22, -1, 0)),
}

missing = {"another user": 1, "seccomp": 1} if layers == "limits" else {}
bounds = confinement.Bounds(memory=1 << 30, output_bytes=1 << 20, seconds=600)
confinement.call_filter()
Path(place).parent.chmod(0o777)
if os.geteuid() == 0:
    confinement._leave_root()  # the worst case: the child has the function's own user
if layers in ("nothing", "no prctl"):
    libc.prctl(4, 1, 0, 0, 0)  # a change of user has closed the memory
else:
    confinement.close_memory()
if layers == "no prctl":
    refusing = seccompy.Filter(default=seccompy.Action.ALLOW)
    refusing.errno("prctl", errno.EPERM)
    refusing.load()
    missing = confinement.probe()

def outcome(attack):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "done"
        try:
            if layers != "nothing":
                confinement.confine(bounds, missing)
            attack()
        except OSError as error:
            said = errno.errorcode[error.errno or 0]
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    said = os.read(reader, 64).decode()
    os.close(reader)
    return said

for name, attack in ATTACKS.items():
    Path(place).touch()
    print(json.dumps([name, outcome(attack), secret.value.decode()]), flush=True)
"""

WITHOUT_THE_KERNELS_HELP = (
    "open a file",
    "list a folder",
    "read the function's environment",
    "open a socket",
    "make a pipe",
    "copy a descriptor",
    "make a memory file",
    "raise a limit",
    "read the function's memory",
    "write the function's memory",
    "trace the function",
)
WITH_THE_FILTER = (
    "end the function",
    "start a process",
    "start a program",
    "remove a file",
    "rename a file",
    "make a link",
    "share memory",
    "run data as code",
)


type Outcomes = dict[str, str]


def outcomes(layers: str) -> Outcomes:
    """How each attack ended: `done`, or the name of the errno with which it was refused."""
    with tempfile.TemporaryDirectory() as name:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, layers, f"{name}/another-upload"],
            env={"PYTHONPATH": os.pathsep.join([MODULES, *(entry for entry in sys.path if "site-packages" in entry)])},
            cwd=name,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert not done.stderr, done.stderr
    reported = [json.loads(line) for line in done.stdout.splitlines()]
    if layers != "nothing":
        assert {secret for _, _, secret in reported} == {"credentials"}
    return {attack: outcome for attack, outcome, _ in reported}


@pytest.fixture(scope="module")
def free() -> Outcomes:
    return outcomes("nothing")


@pytest.fixture(scope="module")
def confined() -> Outcomes:
    return outcomes("everything")


@pytest.fixture(scope="module")
def limited() -> Outcomes:
    return outcomes("limits")


@pytest.fixture(scope="module")
def without_prctl() -> Outcomes:
    return outcomes("no prctl")


@pytest.mark.parametrize("attack", [*WITHOUT_THE_KERNELS_HELP, *WITH_THE_FILTER])
def test_a_confined_decoder_gets_nowhere(attack: str, free: Outcomes, confined: Outcomes) -> None:
    assert free[attack] == "done", "an attack that also fails unconfined proves nothing"
    assert confined[attack] in {"EPERM", "EMFILE", "EACCES"}


@pytest.mark.parametrize("attack", [*WITHOUT_THE_KERNELS_HELP, *WITH_THE_FILTER])
def test_the_filter_alone_stops_what_closed_memory_would(attack: str, without_prctl: Outcomes) -> None:
    assert without_prctl[attack] in {"EPERM", "EMFILE", "EACCES"}


@pytest.mark.parametrize("attack", WITHOUT_THE_KERNELS_HELP)
def test_a_decoder_confined_without_a_seccomp_filter_gets_nowhere(attack: str, limited: Outcomes) -> None:
    assert limited[attack] in {"EPERM", "EMFILE", "EACCES", "EINVAL"}


def test_every_attack_has_an_expected_outcome(free: Outcomes) -> None:
    assert set(free) == {*WITHOUT_THE_KERNELS_HELP, *WITH_THE_FILTER}


def test_the_child_is_not_root() -> None:
    """In the local cloud and in containers the function may be."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    code = """
import os
from sandbox import confinement
confinement.confine(confinement.Bounds(1 << 30, 1 << 20, 60), {"seccomp": 1})
assert (os.getuid(), os.geteuid(), os.getgid(), os.getgroups()) == (65534, 65534, 65534, [])
try:
    os.setuid(0)
except PermissionError:
    print("nobody")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": MODULES}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "nobody\n"
