"""What a gguf takes to serve: resident memory and tokens per second of llama.cpp in a process of its own.

Memory is the most that was resident: pages of the file that were read, the copy that llama.cpp lays out anew for the
CPU, the KV cache. The process is of its own, because memory that a process freed and memory that it never used look
alike from inside; nothing but the engine is imported there. The figures depend on the machine, so they stand in the
card and in no artifact.

Run by hand:  python -m containers.quantize.footprint FILE CONTEXT THREADS
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import xllamacpp

from containers.sockets import SOCKETS

ROOT = Path(__file__).resolve().parents[2]
WARM_UP_TOKENS, TIMED_TOKENS = 4, 48
SLOTS = 4


def settings_of(file: Path, context: int, threads: int, socket: str) -> Any:
    """Return llama.cpp's settings: room for `context` tokens in each of 4 slots, no port but a socket."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_parallel, settings.n_ctx = SLOTS, SLOTS * context
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.check_tensors = True  # refuses infinite scales
    settings.warmup = settings.fit_params = settings.ui = False
    settings.verbosity, settings.cache_ram_mib, settings.n_threads_http = 0, 0, 1
    settings.hostnames = [socket]
    return settings


def footprint(file: Path, context: int, threads: int) -> dict[str, float]:
    """Return `memory_bytes` (peak resident) and `tokens_per_second` (one stream, greedy) of a fresh process.

    Raises RuntimeError with what it said when it fails.
    """
    command = [sys.executable, "-m", "containers.quantize.footprint", str(file.resolve()), str(context), str(threads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"llama.cpp on its own failed on {file.name}: {done.stderr[-500:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(file: Path, context: int, threads: int) -> dict[str, float]:
    """Load `file` in this process, write some tokens, and return what `footprint` returns."""
    with tempfile.TemporaryDirectory(prefix="engine-", dir=SOCKETS) as folder:
        server = xllamacpp.Server(settings_of(file, context, threads, f"{folder}/llama.sock"))
        asked = {"prompt": [0], "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        server.handle_completions({**asked, "max_tokens": WARM_UP_TOKENS})
        answer = server.handle_completions({**asked, "max_tokens": min(TIMED_TOKENS, context - 1)})
        del server
    return {"memory_bytes": peak_memory(), "tokens_per_second": round(answer["timings"]["predicted_per_second"], 1)}


def peak_memory() -> int:
    """Return the most bytes that were resident in this process."""
    status = Path("/proc/self/status")  # getrusage's figure is inherited from the process that started this one
    if status.exists():
        return 1024 * int(status.read_text(encoding="ascii").split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, in bytes


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
