"""API keys of the served model: their digests for the service, and this machine's own key for curl line and pages.

<home>/serve/keys.json holds sha256 digests by owner, the newest last, two at most: a new key can be given out before
the old one stops. <home>/serve/key is the one that `local` uses: a client's own copy, readable by its user alone.
"""

import hashlib
import json
import os
import secrets
from pathlib import Path

from containers.contract import StageError
from containers.out import write_last
from infra.settings import Settings

LOCAL = "local"
"""The owner of the key that is made by default."""
ACTIVE = 2


def local_key(settings: Settings) -> str:
    """Return this machine's key; it is made when there is none, or when it was revoked."""
    file = settings.home / "serve" / "key"
    if file.is_file():
        key = file.read_text(encoding="utf-8").strip()
        if digest_of(key) in digests(settings).get(LOCAL, []):
            return key
    return new_key(settings, LOCAL)


def new_key(settings: Settings, owner: str) -> str:
    """Return a new key of `owner`, whose key before stays valid and the one before that does not.

    A running service takes it at once.
    """
    key = "sk-slipway-" + secrets.token_urlsafe(32)
    kept = digests(settings)
    write(settings, kept | {owner: [*kept.get(owner, []), digest_of(key)][-ACTIVE:]})
    if owner == LOCAL:
        keep(settings.home / "serve" / "key", key + "\n")
    return key


def revoke_keys(settings: Settings, owner: str) -> None:
    """End all keys of `owner` at once; raises StageError when it has none."""
    kept = digests(settings)
    if owner not in kept:
        raise StageError(f"{owner!r} has no key here: {', '.join(kept) or 'nobody'} has")
    write(settings, {name: found for name, found in kept.items() if name != owner})


def digests(settings: Settings) -> dict[str, list[str]]:
    """Return owner -> digests of active keys; raises StageError for a broken file."""
    file = keys_file(settings)
    if not file.is_file():
        return {}
    try:
        found: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
        return {str(owner): list(listed) for owner, listed in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise StageError(f"{file} is broken ({error}): remove it, and give out new keys with `slipway key`") from error


def digest_of(key: str) -> str:
    """Return what the service keeps of a key (containers/serve/keys.py)."""
    return hashlib.sha256(key.encode()).hexdigest()


def keys_file(settings: Settings) -> Path:
    """Return the path of keys.json."""
    return settings.home / "serve" / "keys.json"


def write(settings: Settings, found: dict[str, list[str]]) -> None:
    """Replace keys.json."""
    file = keys_file(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_last(file, json.dumps(found, indent=1))


def keep(file: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
