"""Look after the store: free what no run needs, and say what is damaged."""

from pathlib import Path

from rich.console import Console

from infra.journal import is_driven, run_folders
from infra.prune import Waste, discard, waste
from infra.runs import read_record
from infra.service import service_status
from infra.settings import Settings
from infra.store import Store

GIB = 2**30


def prune_store(keep: int, dry_run: bool) -> None:
    """Remove all but the newest `keep` runs, and every stored stage that no kept run and no served bundle uses."""
    settings = Settings()
    runs = sorted(run_folders(settings.runs, "run.json"), key=began)
    old = [run for run in runs[:-keep] if not is_driven(run)]
    kept = [run for run in runs if run not in old]
    used = {entry.address for run in kept for entry in read_record(run).stages} | served(settings)
    doomed = [*(Waste(run, "an older run") for run in old), *waste(settings, used)]
    freed = sum(each.bytes for each in doomed)
    for each in doomed:
        print(
            f"{'would remove' if dry_run else 'removed'} {each.folder.name} ({each.bytes / 1e6:.1f} MB): {each.reason}"
        )
        if not dry_run:
            discard(each.folder)
    print(f"{freed / 1e6:.1f} MB {'would be' if dry_run else ''} freed; {len(kept)} runs kept".replace("  ", " "))


def began(run: Path) -> float:
    """Return when a run began."""
    return read_record(run).began


def served(settings: Settings) -> set[str]:
    """Return the address of the bundle that is served, if one is."""
    service = service_status(settings)
    if service is None:
        return set()
    inside = service.bundle.path.relative_to(settings.store.absolute())
    return {inside.parts[0]}


def verify_store(addresses: list[str]) -> int:
    """Hash every file of the given addresses (default: all); print what is wrong; return 1 when something is."""
    store, console = Store(Settings().store), Console()
    chosen = addresses or store.addresses()
    damaged = 0
    for address in chosen:
        wrong = store.verify(address)
        damaged += bool(wrong)
        for line in wrong:
            console.print(f"{address}: {line}", style="red", highlight=False, markup=False)
    print(f"{len(chosen) - damaged} of {len(chosen)} are as they were published")
    return 1 if damaged else 0
