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
from infra.runs import RunRecord, StageEntry
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
        leave_an_orphan(settings, toy)
        answers = []
        for wish in wishes:
            board = Board(Console(file=sys.stderr), ("tokenizer", "announce"))
            token = prepared.set(Preparation((board,)))
            try:
                with board:
                    answers.append(toy(f"{folder}/toy.yaml", str(folder), *map(int, wish.split(":"))).bundle)
            except Exception as error:
                answers.append(f"{type(error).__name__}: {error}")
            prepared.reset(token)
        drain_prefect()  # Asked below: what is on its way must have arrived.
        known = {kind: ask(f"{os.environ['PREFECT_API_URL']}/{kind}/filter") for kind in KINDS}
    print(json.dumps({"answers": answers, **known}))


def leave_an_orphan(settings: Settings, flow: Any) -> None:
    """Leave what a driver that was killed leaves: a record and a flow run that say that it runs."""
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    with get_client(sync_client=True) as client:
        orphan = client.create_flow_run(
            flow, name="orphan", parameters={"recipe_name": "x", "folder": "x"}, state=Running()
        )
    folder = settings.runs / "orphan"
    folder.mkdir(parents=True)
    stages = (StageEntry(name="sft"),)
    record = RunRecord(run="orphan", recipe="x", began=0, config={}, flow_run_id=str(orphan.id), stages=stages)
    (folder / "run.json").write_text(record.model_dump_json())


def ask(url: str) -> Any:
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
