"""A look at the machine before anything is installed: what Slipway needs, what is there, and the way out.

Standard library only, and any Python from 3.7 on can run it:  python3 infra/doctor.py
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Iterator, NamedTuple  # noqa: UP035 - this file must also run on an old Python, to refuse it

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
INSTALL_BYTES, RUN_BYTES = 4 * GIB, 2 * GIB
MEMORY_NEEDED, MEMORY_ADVISED = 3 * GIB, 6 * GIB
PORTS = (("prefect", "SLIPWAY_PREFECT_PORT", 4200), ("mlflow", "SLIPWAY_MLFLOW_PORT", 5000))
OK, NOTE, REFUSED = "ok", "note", "refused"


class Finding(NamedTuple):
    """One thing looked at: its verdict (ok, note or refused), what was seen, and what to do about it."""

    verdict: str
    subject: str
    seen: str
    advice: str = ""


def examine(root: Path = ROOT) -> list[Finding]:
    """Return every finding about this machine, most basic first; nothing is changed."""
    found = [machine(platform.system(), platform.machine()), python(), virtual_environment(root)]
    found += [disk(root), memory(), processor(), compiler(), gpu()]
    return found + [port(*known) for known in PORTS]


def machine(system: str, kind: str) -> Finding:
    """Judge the platform; PyTorch has wheels for Linux with glibc and for Apple silicon only."""
    seen = f"{system} {kind}"
    if system == "Windows":
        return Finding(REFUSED, "machine", seen, "native Windows is not supported: run inside WSL2 (wsl --install)")
    if system == "Darwin" and kind != "arm64":
        if translated():
            way_out = "this Python is an Intel build under Rosetta: install an arm64 Python (brew install python@3.12)"
        else:
            way_out = "PyTorch no longer comes for Intel Macs: use a Linux machine, or Docker on one"
        return Finding(REFUSED, "machine", seen, way_out)
    if system == "Linux" and platform.libc_ver()[0] != "glibc":
        way_out = "PyTorch has no wheels for musl: use a glibc distribution (Debian, Ubuntu, Fedora)"
        return Finding(REFUSED, "machine", seen, way_out)
    if system not in ("Linux", "Darwin") or kind not in ("x86_64", "aarch64", "arm64"):
        return Finding(REFUSED, "machine", seen, "use Linux (x86_64 or aarch64) or macOS on Apple silicon")
    return Finding(OK, "machine", seen)


def translated() -> bool:
    """Whether this process is an Intel program on Apple silicon."""
    return said(["sysctl", "-n", "sysctl.proc_translated"]) == "1"


def python() -> Finding:
    """Judge the interpreter."""
    seen = f"Python {platform.python_version()} ({sys.executable})"
    if sys.version_info < (3, 11):  # noqa: UP036 - an old Python is exactly what this line looks for
        return Finding(REFUSED, "python", seen, "install Python 3.11 or newer and run `make PYTHON=python3.11 run`")
    return Finding(OK, "python", seen)


def virtual_environment(root: Path) -> Finding:
    """Judge whether .venv is there, or can be made: Debian keeps ensurepip in a package of its own."""
    if (root / ".venv" / "bin" / "python").exists():
        return Finding(OK, "venv", ".venv is there")
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        package = f"python3.{sys.version_info[1]}-venv"
        return Finding(REFUSED, "venv", "this Python cannot make one", f"install it: sudo apt install {package}")
    advice = "`make` downloads about 1 GB of packages into .venv (4 GB with a CUDA build of PyTorch)"
    return Finding(OK, "venv", "none yet", advice)


def disk(root: Path) -> Finding:
    """Judge the free space where Slipway stands."""
    free = shutil.disk_usage(str(root)).free
    needed = RUN_BYTES + (0 if (root / ".venv").exists() else INSTALL_BYTES)
    seen = f"{free / GIB:.0f} GiB free"
    if free < needed:
        return Finding(REFUSED, "disk", seen, f"free {needed // GIB} GiB, or move the checkout to a larger disk")
    return Finding(OK, "disk", seen)


def memory() -> Finding:
    """Judge the memory that this process may use."""
    usable = usable_memory()
    seen = f"{usable / GIB:.1f} GiB"
    if usable < MEMORY_NEEDED:
        return Finding(REFUSED, "memory", seen, f"the smallest run needs {MEMORY_NEEDED // GIB} GiB")
    if usable < MEMORY_ADVISED:
        return Finding(NOTE, "memory", seen, f"{MEMORY_ADVISED // GIB} GiB are comfortable; `slipway plan` says more")
    return Finding(OK, "memory", seen)


def usable_memory() -> int:
    """Return physical memory in bytes, or the container's limit where that is lower."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if Path(file).exists():
            limit = Path(file).read_text().strip()
            return min(physical, int(limit)) if limit.isdigit() else physical
    return physical


def processor() -> Finding:
    """Judge cores and vector units: QLoRA on a CPU needs AVX2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "avx2"
    if platform.machine() == "x86_64" and "avx2" not in flags:
        return Finding(NOTE, "processor", f"{cores} cores, no AVX2", "QLoRA on this CPU will be very slow")
    return Finding(OK, "processor", f"{cores} cores")


def compiler() -> Finding:
    """Judge whether torch.compile can work: it needs a C++ compiler and Python's headers."""
    found = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    headers = (Path(sysconfig.get_paths()["include"]) / "Python.h").exists()
    if found and headers:
        return Finding(OK, "compiler", found)
    missing = " and ".join(["a C++ compiler"] * (not found) + ["Python headers"] * (not headers))
    fix = "sudo apt install g++ python3-dev" if platform.system() == "Linux" else "xcode-select --install"
    return Finding(NOTE, "compiler", f"{missing} missing", f"training runs eager, about a third slower; {fix}")


def gpu() -> Finding:
    """Name the GPU; a run needs none."""
    listed = said(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"])
    return Finding(OK, "gpu", listed.replace("\n", "; ") or "none: everything runs on the CPU")


def gpu_memory() -> int:
    """Return the memory of the largest NVIDIA GPU in bytes, 0 without one."""
    listed = said(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]).split()
    return max((int(size) * 2**20 for size in listed if size.isdigit()), default=0)


def port(server: str, setting: str, default: int) -> Finding:
    """Judge whether a server's port is free; a taken one only matters to `make up`."""
    number = int(os.environ.get(setting, default))
    if is_free(number):
        return Finding(OK, "port", f"{number} is free ({server})")
    return Finding(NOTE, "port", f"{number} is taken by {holder_of(number)}", f"{server} can move: {setting}=<number>")


def is_free(number: int) -> bool:
    """Whether nobody listens on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", number)) != 0


def holder_of(number: int) -> str:
    """Name the program that listens on a port, as far as this user may see: `nginx (pid 812)`."""
    sockets = {f"socket:[{inode}]" for inode in listening(number)}
    for link in Path("/proc").glob("[0-9]*/fd/*") if sockets else ():
        try:
            if os.readlink(str(link)) in sockets:  # noqa: PTH115 - Path.readlink came with Python 3.9
                program = Path(*link.parts[:3], "comm").read_text().strip()
                return f"{program} (pid {link.parts[2]})"
        except OSError:
            continue
    seen = said(["lsof", "-nP", f"-iTCP:{number}", "-sTCP:LISTEN", "-Fpc"]).split("\n")
    named = {line[:1]: line[1:] for line in seen if line}
    return f"{named['c']} (pid {named['p']})" if {"c", "p"} <= set(named) else "another user's program"


def listening(number: int) -> Iterator[str]:
    """Yield the inode of every socket that listens on a TCP port (Linux)."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rsplit(":", 1)[1], 16) == number:
                yield columns[9]


def said(command: list[str]) -> str:
    """Return what a command printed, or nothing when it is absent or fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip()


def main() -> int:
    """Print every finding; return 2 when something is refused."""
    findings = examine()
    for finding in findings:
        advice = f" - {finding.advice}" if finding.advice else ""
        print(f"{finding.verdict:8} {finding.subject:10} {finding.seen}{advice}")
    refused = [finding for finding in findings if finding.verdict == REFUSED]
    print(f"\n{len(refused)} of these must be mended first." if refused else "\nReady.")
    return 2 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
