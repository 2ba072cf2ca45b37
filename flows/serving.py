"""Serve a bundle that a run packaged, and stop it again: `slipway serve`, `sign`, `key` and `stop`."""

import json

from rich.console import Console

from containers.contract import Bundle, Endpoint, StageError
from containers.package.contract import STAGE
from containers.serve.contract import ServeConfig
from infra.keys import local_key, new_key, revoke_keys
from infra.runs import RunRecord, find_run, read_record
from infra.service import start_service, stop_service
from infra.settings import Settings
from infra.signing import own_public_key, sign_bundle
from infra.store import Store


def serve_bundle(address: str, port: int | None) -> None:
    """Serve the bundle at an address of the store (that of the newest run by default)."""
    settings = Settings()
    record = read_record(find_run(settings))
    bundle = bundle_at(address or packaged(record), settings)
    config = ServeConfig.model_validate(record.config.get("serve", {}))
    config = config.revise(port=port) if port else config
    endpoint = start_service(bundle, config, settings)
    announce(endpoint, config, settings)


def bundle_at(address: str, settings: Settings) -> Bundle:
    """Return the bundle at an address of the store; raises StageError where another stage made what is there."""
    found = Store(settings.store).load(address)
    if found.result.stage != STAGE.word:
        raise StageError(f"{address} holds what {found.result.stage} made, and a bundle is wanted: package-...")
    bundle: Bundle = found.outputs(STAGE).bundle
    return bundle


def sign_again(address: str) -> None:
    """Sign a bundle of the store (that of the newest run by default) whose files are as they were published."""
    settings = Settings()
    chosen = address or packaged(read_record(find_run(settings)))
    bundle = bundle_at(chosen, settings)
    wrong = Store(settings.store).verify(chosen)
    if wrong:
        raise StageError(f"{chosen} is not as it was published, so it is not signed: {'; '.join(wrong)}")
    print(f"{chosen} is signed with the key {sign_bundle(bundle, settings)}\n  {own_public_key(settings)}")


def announce(endpoint: Endpoint, config: ServeConfig, settings: Settings) -> None:
    """Say where the model answers, and how to ask it: a curl line and a page that work as they are."""
    key = local_key(settings) if config.authentication == "key" else ""
    question = {"model": endpoint.model, "messages": [{"role": "user", "content": "What is 2+2?"}]}
    header = f" -H 'Authorization: Bearer {key}'" if key else ""
    console = Console()
    console.print(f"\n[bold green]{endpoint.model}[/] answers at [bold]{endpoint.url}[/]", highlight=False)
    print(f"  chat page  {endpoint.url}/{f'#key={key}' if key else ''}")
    print(
        f"\n  curl {endpoint.url}/v1/chat/completions -H 'Content-Type: application/json'{header} "
        f"-d '{json.dumps(question)}'\n"
    )


def make_key(owner: str, revoke: bool) -> None:
    """Print a new API key of `owner`, or end the keys that it has."""
    settings = Settings()
    if revoke:
        revoke_keys(settings, owner)
        print(f"the keys of {owner} no longer work")
        return
    print(new_key(settings, owner))


def packaged(record: RunRecord) -> str:
    """Return the address of a run's bundle; raises StageError when it packaged none."""
    made = [entry.address for entry in record.stages if entry.name == "package" and entry.status in ("done", "cached")]
    if not made:
        raise StageError(f"{record.run} packaged nothing: name a bundle (`slipway status` lists addresses)")
    return made[-1]


def stop_serving() -> None:
    """Stop the served model."""
    print("stopped" if stop_service(Settings()) else "nothing was served")
