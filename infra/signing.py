"""Keys for bundles: each home makes its own pair at first need, or its user names one; what is packaged is signed.

<home>/keys/signing.pem is the private key, for its user alone; <home>/keys/trusted.pem the public one, which `slipway
serve` trusts. A bundle's signature lies beside its outputs in the store, <address>/bundle.sig.
"""

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from containers.contract import Bundle, StageError
from containers.out import write_last
from containers.signatures import Trust, fingerprint, sign, verify
from infra.launch import current_launch
from infra.planning import current_plan
from infra.settings import Settings


def signed(bundle: Bundle) -> Bundle:
    """Return a bundle that a stage of the current launch made, signed.

    One that was found in the store is left as it is: a signature that is gone, or another's, is for a person to judge.
    """
    ended = {stage.address: stage.status for stage in current_launch().stages}
    if current_plan() is None and ended.get(bundle.path.parent.parent.name) == "done":
        sign_bundle(bundle, current_launch().settings)
    return bundle


def sign_bundle(bundle: Bundle, settings: Settings) -> str:
    """Sign a bundle of the store with this home's key; return the fingerprint of its public key."""
    signature = signature_of(bundle)
    fresh = signature.with_suffix(f".{secrets.token_hex(4)}")
    sign(bundle.path, signing_key(settings), fresh)
    fresh.replace(signature)
    return fingerprint(own_public_key(settings))


def check_signature(bundle: Bundle, settings: Settings) -> None:
    """Raise StageError unless the trusted key signed every byte of a bundle; done here, before its code is run."""
    verify(bundle.path, trust_in(bundle, settings))


def trust_in(bundle: Bundle, settings: Settings) -> Trust:
    """Return the key that is trusted, and where the bundle's signature lies; raises StageError."""
    if settings.trusted_key and not settings.trusted_key.is_file():
        raise StageError(f"SLIPWAY_TRUSTED_KEY names {settings.trusted_key}, and there is no such file")
    return Trust((settings.trusted_key or own_public_key(settings)).absolute(), signature_of(bundle).absolute())


def signature_of(bundle: Bundle) -> Path:
    """Return where the signature of a bundle of the store lies."""
    return bundle.path.parent.parent / "bundle.sig"


def signing_key(settings: Settings) -> Path:
    """Return the private key: the one that the user named, else this home's, made if there is none (mode 0600)."""
    if settings.signing_key:
        if not settings.signing_key.is_file():
            raise StageError(f"SLIPWAY_SIGNING_KEY names {settings.signing_key}, and there is no such file")
        return settings.signing_key
    file = settings.home / "keys" / "signing.pem"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(new_private_key())
        try:
            os.link(draft, file)  # of two that are made at once, one stays
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file


def new_private_key() -> bytes:
    """Return a new private key on P-256, as PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def own_public_key(settings: Settings) -> Path:
    """Return <home>/keys/trusted.pem, the public half of the key that signs here; raises StageError."""
    file, private = settings.home / "keys" / "trusted.pem", signing_key(settings)
    try:
        public = serialization.load_pem_private_key(private.read_bytes(), None).public_key()
    except (ValueError, TypeError) as error:
        raise StageError(f"{private} is no private key in PEM without a password ({error})") from error
    text = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_last(file, text)
    return file
