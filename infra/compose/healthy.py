"""Whether a service is healthy, for compose: exit code 0 or 1.

python -m infra.compose.healthy URL     whether it answers 200
python -m infra.compose.healthy host    whether the serving side of the home lives, and its model answers if it has one
"""

import sys

from infra.probe import answers


def main(what: str) -> int:
    """Return the exit code."""
    if what != "host":
        return 0 if answers(what) else 1
    from infra.serve_elsewhere import host_lives, wanted
    from infra.settings import Settings

    settings = Settings()
    served = wanted(settings) is None or answers("http://127.0.0.1:3000/readyz")
    return 0 if host_lives(settings) and served else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
