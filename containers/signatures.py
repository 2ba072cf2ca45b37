"""The signature of a bundle: made where a model is released, asked for before any of its weights is read.

model-signing (the Sigstore project's library) with a key pair on an elliptic curve, which needs no network. What is
signed is the sha256 of every file of the Bento. A signature is kept beside a bundle, outside of its digest: ECDSA draws
a random number, so that no two signatures are alike, and the same inputs are to give the same bundle, byte for byte.
Whoever serves a bundle trusts one public key.
"""

import ast
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from containers.contract import StageError

INSIDE = "model.sig"
"""What a signature is called in a bundle that was carried elsewhere; it does not sign itself."""
PARTS = {
    "src/manifest.json": "the manifest",
    "src/model/chat_template.jinja": "the chat template",
    "src/model/tokenizer.json": "the tokenizer",
    "src/model/model.gguf": "the file of the weights",
    "src/model/model.safetensors": "the file of the weights",
}
DIFFERS = "Signature mismatch: "
CHANGED = re.compile(r"Hash mismatch for '(.+)': Expected")
MISSING = re.compile(r"Missing files in model '.*?': (.+)")
ADDED = re.compile(r"Extra files found in model '.*?': (.+)")
"""How model-signing 1.1 says what differs: a list of lines, after DIFFERS."""


class Trust(NamedTuple):
    """What a server asks of a bundle: a signature, and whose."""

    key: Path
    """Public key, PEM."""
    signature: Path


def sign(bundle: Path, private_key: Path, signature: Path) -> None:
    """Sign every file of `bundle` with a private key (PEM; P-256, P-384 or P-521) into the file `signature`."""
    from model_signing import hashing, signing

    every = hashing.Config().set_ignored_paths(paths=[INSIDE], ignore_git_paths=False)
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise StageError(
            f"{private_key} is no private key to sign with ({error}): "
            "`openssl ecparam -name prime256v1 -genkey -noout -out FILE` makes one"
        ) from error
    signer.set_hashing_config(every).sign(bundle, signature)


def verify(bundle: Path, trust: Trust) -> None:
    """Raise StageError unless the trusted key signed exactly the files that are in `bundle` now; loads none of them."""
    from model_signing import hashing, verifying

    if not trust.signature.is_file():
        raise StageError(f"{bundle} is not signed ({trust.signature} is missing): have `slipway sign` sign it")
    every = hashing.Config().set_ignored_paths(paths=[INSIDE], ignore_git_paths=False)
    try:
        check = verifying.Config().use_elliptic_key_verifier(public_key=trust.key)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise StageError(f"{trust.key} is no public key to trust ({error})") from error
    try:
        check.set_hashing_config(every).verify(bundle, trust.signature)
    except Exception as error:  # whatever the parsers of a broken signature raise: it is refused
        raise StageError(refusal(str(error), bundle, trust)) from error


def refusal(error: str, bundle: Path, trust: Trust) -> str:
    """Return what is wrong and what to do, from model-signing's words."""
    if "Key mismatch" in error:
        return (
            f"{bundle} was signed with another key than the trusted one ({fingerprint(trust.key)[:16]}): "
            "trust the signer's public key (SLIPWAY_TRUSTED_KEY), or sign the bundle anew with `slipway sign`"
        )
    said = "\n".join(ast.literal_eval(error.removeprefix(DIFFERS))) if error.startswith(DIFFERS) else ""
    if found := CHANGED.search(said):
        return f"{named(found[1], bundle)} has changed since the bundle was signed: package it again"
    if found := MISSING.search(said):
        return f"{named(first(found[1]), bundle)} is missing since the bundle was signed: package it again"
    if found := ADDED.search(said):
        byte_code = " (serve with PYTHONDONTWRITEBYTECODE=1)" if first(found[1]).endswith(".pyc") else ""
        return f"{named(first(found[1]), bundle)} was added since the bundle was signed: remove it{byte_code}"
    if "symlink" in error.lower():
        return f"{bundle} holds a symbolic link, and a bundle has none: {error}"
    return f"{trust.signature} is damaged, it is not what the key signed ({error or 'wrong signature'})"


def first(listed: str) -> str:
    """Return the first of names joined by commas."""
    return listed.split(", ", maxsplit=1)[0].strip()


def named(file: str, bundle: Path) -> str:
    """Return a file of the bundle with what it is to the model."""
    return f"{PARTS[file]} ({bundle / file})" if file in PARTS else str(bundle / file)


def fingerprint(public_key: Path) -> str:
    """Return the sha256 of a public key's PEM text, which a signature names its key by."""
    return hashlib.sha256(public_key.read_bytes()).hexdigest()
