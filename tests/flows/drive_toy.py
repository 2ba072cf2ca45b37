"""Drive the toy flow as the command line drives a real one, and print what Prefect then knows as JSON.

python -m tests.flows.drive_toy FOLDER VOCAB_SIZE[:ROWS]...
"""

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.board import Board
from flows.session import drain_prefect, prefect_api, quiet_prefect
from infra.settings import Settings

KINDS = ("flow_runs", "task_runs", "logs", "artifacts")


def main(folder: Path, wishes: list[str]) -> None:
    settings = Settings()
    with prefect_api(settings) as api:
        from infra.orchestration import Preparation, prepared
        from tests.flows.toy_flow import toy

        assert api
        api.wait()
        quiet_prefect(settings.logs / "prefect.log")
        answers = []
        for wish in wishes:
            board = Board(Console(file=sys.stderr), ("tokenizer", "announce"))
            token = prepared.set(Preparation((board,)))
            try:
                with board:
                    answers.append(toy("toy", str(folder), *map(int, wish.split(":"))).bundle)
            except Exception as error:
                answers.append(f"{type(error).__name__}: {error}")
            prepared.reset(token)
        drain_prefect()  # Asked below: what is on its way must have arrived.
        known = {kind: ask(f"{os.environ['PREFECT_API_URL']}/{kind}/filter") for kind in KINDS}
    print(json.dumps({"answers": answers, **known}))


def ask(url: str) -> Any:
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
