"""Models found again in the store: by their digest, or by the bundle that was made of them."""

from containers.contract import Adapter, Bundle, Model, Speaker, StageError, artifacts_in
from containers.entrypoint import stage_named
from infra.launch import current_launch
from infra.pins import pinned_artifact
from infra.store import Store, StoreError


def model_with(store: Store, digest: str) -> Model | None:
    """Return the model with this digest, if a stage in the store made it."""
    for address in store.addresses():
        published = store.load(address)
        told = published.result.outputs.values()
        if any(isinstance(value, dict) and value.get("digest") == digest for value in told):
            made = dict(artifacts_in(published.outputs(stage_named(published.result.stage))))
            found = [
                artifact for artifact in made.values() if isinstance(artifact, Model) and artifact.digest == digest
            ]
            if found:
                return found[0]
    return None


def stored_model(pin: str) -> Model | Adapter:
    """Return the model or adapter that `store:<address>` names; raises StageError for anything else."""
    found = pinned_artifact(pin, Speaker, "model")
    if not isinstance(found, Model | Adapter):
        raise StageError(
            f"model: {pin} is of kind {type(found).__name__.lower()}, and a model or an adapter is released"
        )
    return found


def base_of(chosen: Model | Adapter) -> Model:
    """Return the model that an adapter was trained on (a model is its own base); raises StageError where it is gone."""
    if isinstance(chosen, Model):
        return chosen
    base = model_with(current_launch().store, chosen.base)
    if base is None:
        raise StageError(
            f"the base of this adapter (digest {chosen.base[:12]}) is not in the store: run its recipe again"
        )
    return base


def model_in(store: Store, bundle: Bundle) -> Model:
    """Return the 16-bit model that a bundle was made of; raises StageError where the store has either no more."""
    address = bundle.path.parent.parent.name
    try:
        inputs = store.load(address).request.inputs
    except StoreError as error:
        raise StageError(f"the served bundle cannot be compared with: {error}; `slipway stop` lets go of it") from error
    adapters = inputs.get("adapters")
    found = model_with(store, adapters["whole"] if adapters else inputs["quantized"]["parent"])
    if found is None:
        raise StageError(
            f"the model of the served bundle {address} is no longer in the store, so that it cannot be measured again: "
            "`slipway stop` lets go of it, and the next run serves what it makes"
        )
    return found
