"""API keys: who may ask. The server keeps their sha256 only; a key is 256 random bits, so no slower hash is needed.

keys.json: {"owner": ["<sha256 of a key>", ...], ...}. An owner has two keys at most, so that a new one can be given out
before the old one stops; limits are the owner's, whichever key is used. The file may change while the service runs.
"""

import hashlib
import json
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from containers.contract import StageError
from containers.serve.errors import APIError

ANYONE = "anyone"
"""The owner of every request where no key is asked for."""
PREFIX = "sk-slipway-"
Stamp = tuple[int, int, int] | None


class Keyring:
    """The keys in `file`, read again when it changes. Without a file: one key, made now and printed once."""

    def __init__(self, file: Path | None) -> None:
        """Read the keys; raises StageError when the file is not what it should be."""
        self._file = file
        self._stamp: Stamp = None
        self._owners: dict[str, str] = {}
        if file is None:
            key = PREFIX + secrets.token_urlsafe(32)
            self._owners = {digest_of_key(key): "printed"}
            print(f"Slipway: the API key of this service is {key}", file=sys.stderr, flush=True)
        else:
            self._read(file)

    def owner_of(self, authorization: str) -> str:
        """Return whose key an Authorization header holds; raises APIError 401."""
        if self._file is not None and self._stamp != stamp_of(self._file):
            with suppress(StageError):  # While it is broken, the keys stay as they were.
                self._read(self._file)
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise refusal("this server wants an API key: send the header Authorization: Bearer KEY")
        owner = self._owners.get(digest_of_key(key.strip()))
        if owner is None:
            raise refusal("this API key is not valid here")
        return owner

    def _read(self, file: Path) -> None:
        """Take the file's keys; a time of change that is noted before reading cannot miss a later change."""
        self._stamp = stamp_of(file)
        try:
            listed = json.loads(file.read_text(encoding="utf-8"))
            self._owners = {str(digest): str(owner) for owner, digests in listed.items() for digest in digests}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise StageError(f'{file} holds no API keys ({error}): write {{"owner": ["sha256 of a key"]}}') from error


def digest_of_key(key: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def stamp_of(file: Path) -> Stamp:
    """Return what changes whenever a file is written or replaced, None when it is gone."""
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def refusal(message: str) -> APIError:
    """Return the 401 that says so."""
    return APIError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
