"""Make a base image from this machine's own Debian packages: no registry is asked, and it takes seconds.

    python tests/containers/base_image.py slipway-test/base

The closure of what a stage image needs (Python with venv, a C++ compiler) is copied file by file, as dpkg lists it.
"""

import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

ROOTS = (
    "base-files", "bash", "dash", "coreutils", "grep", "sed", "findutils", "ca-certificates", "libgomp1",
    "python3", "python3-venv", "python3-dev", "g++",
)  # fmt: skip
MERGED = ("bin", "sbin", "lib", "lib64")
"""Links into /usr on Debian."""
DOCUMENTATION = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale")
ACCOUNTS = b"root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUPS = b"root:x:0:\nnogroup:x:65534:\n"


def closure() -> set[str]:
    """Return the installed packages that ROOTS need, by name."""
    fields = "${Package}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", fields], capture_output=True, text=True, check=True).stdout
    needs: dict[str, list[str]] = {}
    provided: dict[str, str] = {}
    for name, status, depends, provides in (line.split("\t") for line in listed.splitlines()):
        if status == "installed":
            needs[name] = [names(alternative) for alternative in re.split(r"[,|]", depends)]
            provided.update({names(other): name for other in provides.split(",") if names(other)})
    found: set[str] = set()
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        name = name if name in needs else provided.get(name, "")
        if name and name not in found:
            found.add(name)
            waiting += needs[name]
    missing = set(ROOTS) - found
    if missing:
        raise SystemExit(f"not installed here: {' '.join(sorted(missing))}: apt-get install them")
    return found


def names(requirement: str) -> str:
    """Return the package of one requirement, without its version and architecture."""
    return re.split(r"[ :(]", requirement.strip())[0]


def files(packages: set[str]) -> Iterator[Path]:
    """Yield what the packages installed, each path resolved but for its last part; documentation is left out."""
    listed = subprocess.run(["dpkg", "-L", *sorted(packages)], capture_output=True, text=True, check=True).stdout
    for path in map(Path, dict.fromkeys(listed.splitlines())):
        wanted = path.is_absolute() and not str(path).startswith(DOCUMENTATION)
        if wanted and (path.is_symlink() or path.exists()):
            yield path.parent.resolve() / path.name
    yield from (path for path in Path("/etc/alternatives").iterdir() if path.resolve().exists())
    yield Path("/usr/bin/sh")
    yield Path("/etc/ssl/certs/ca-certificates.crt")
    links = (path for path in Path("/usr/bin").iterdir() if path.is_symlink())
    yield from (link for link in links if str(link.readlink()).startswith("/etc/alternatives/") and link.exists())


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a small file."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def main(image: str) -> None:
    """Pipe the files to `docker import`."""
    importer = subprocess.Popen(["docker", "import", "-", image], stdin=subprocess.PIPE)
    assert importer.stdin
    with tarfile.open(fileobj=importer.stdin, mode="w|") as archive:
        seen = set()
        for path in files(closure()):
            if path not in seen and not (len(path.parts) == 2 and path.name in MERGED):
                seen.add(path)
                archive.add(path, str(path).lstrip("/"), recursive=False)
        for name in MERGED:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(link)
        for name in {"tmp", "root", "var/tmp", "proc", "sys", "dev"} - {str(path).lstrip("/") for path in seen}:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if "tmp" in name else 0o755
            archive.addfile(folder)
        add(archive, "etc/passwd", ACCOUNTS)
        add(archive, "etc/group", GROUPS)
    importer.stdin.close()
    sys.exit(importer.wait())


if __name__ == "__main__":
    main(sys.argv[1])
