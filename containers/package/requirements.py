"""Pinned requirements of what is installed here: the roots and all that they need, as `name==version`."""

import functools
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@functools.cache
def pinned(roots: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sorted pins of `roots` and their dependencies on this platform; absent optional ones are left out.

    Raises PackageNotFoundError for a root that is not installed.
    """
    found: dict[str, str] = {}
    wanted = [Requirement(root) for root in roots]
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            if name in roots:
                raise
            continue
        found[name] = installed.version.partition("+")[0]
        for line in installed.requires or ():
            below = Requirement(line)
            extras = [*requirement.extras, ""]
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(below)
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()))
