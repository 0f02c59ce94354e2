"""The projects of a Trackio dashboard as JSON, as its own interface tells them: by project and run, the configuration, rows and
statistics. Arguments: the address, and projects."""

import json
import sys
import urllib.request


def call(name, **kwargs):
    body = json.dumps({"args": [], "kwargs": kwargs}).encode()
    request = urllib.request.Request(f"{sys.argv[1]}/api/{name}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["data"]


def read(project, run):
    return {
        "name": run["name"],
        "config": call("get_run_summary", project=project, run_id=run["id"])["config"],
        "rows": call("get_logs", project=project, run=run["name"], run_id=run["id"]),
        "system": call("get_system_logs", project=project, run=run["name"], run_id=run["id"]),
    }


projects = {name: call("get_runs_for_project", project=name) for name in sys.argv[2:]}
print(json.dumps({name: {run["id"]: read(name, run) for run in runs} for name, runs in projects.items()}))
