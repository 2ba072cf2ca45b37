"""Serve a bundle that a run packaged, and stop it again: `slipway serve` and `slipway stop`."""

from rich.console import Console

from containers.contract import Bundle, StageError
from containers.package.contract import STAGE
from containers.serve.contract import ServeConfig
from infra.runs import RunRecord, find_run, read_record
from infra.service import start_service, stop_service
from infra.settings import Settings
from infra.store import Store


def serve_bundle(address: str, port: int | None) -> None:
    """Serve the bundle at an address of the store (that of the newest run by default)."""
    settings = Settings()
    record = read_record(find_run(settings))
    chosen = address or packaged(record)
    bundle: Bundle = Store(settings.store).load(chosen).outputs(STAGE).bundle
    config = ServeConfig.model_validate(record.config.get("serve", {}))
    endpoint = start_service(bundle, config.revise(port=port) if port else config, settings)
    Console().print(f"[bold green]{endpoint.model}[/] answers at [bold]{endpoint.url}[/]", highlight=False)


def packaged(record: RunRecord) -> str:
    """Return the address of a run's bundle; raises StageError when it packaged none."""
    made = [entry.address for entry in record.stages if entry.name == "package" and entry.status in ("done", "cached")]
    if not made:
        raise StageError(f"{record.run} packaged nothing: name a bundle (`slipway status` lists addresses)")
    return made[-1]


def stop_serving() -> None:
    """Stop the served model."""
    print("stopped" if stop_service(Settings()) else "nothing was served")
