"""What the machine does while stages run, under the names by which MLflow shows system metrics."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from infra.runs import Run

SECONDS = 5.0


@contextmanager
def sampling(run: Run, seconds: float = SECONDS) -> Iterator[None]:
    """Append a sample to the run's journal every few seconds, on the account of each stage that runs."""
    done = threading.Event()

    def sample() -> None:
        step = 0
        psutil.cpu_percent()
        while not done.wait(seconds):
            values = reading(run.folder)
            for key in run.running:
                run.journal.write("metrics", key, step=step, values=values)
            step += 1

    thread = threading.Thread(target=sample, name="sampling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def reading(place: Path) -> dict[str, float]:
    """Return percentages and megabytes used of processor, memory, disk and every NVIDIA GPU."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(place))
    values = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/disk_usage_percentage": disk.percent,
        "system/disk_available_megabytes": disk.free / 1e6,
    }
    return {**values, **gpu_reading()}


def gpu_reading() -> dict[str, float]:
    """Return utilisation and memory of each GPU; nothing where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    values = {}
    for index in range(pynvml.nvmlDeviceGetCount()):
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        values[f"system/gpu_{index}_utilization_percentage"] = float(pynvml.nvmlDeviceGetUtilizationRates(device).gpu)
        values[f"system/gpu_{index}_memory_usage_megabytes"] = memory.used / 1e6
    return values
