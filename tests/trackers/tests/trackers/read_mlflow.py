"""All runs of an MLflow server as JSON, as its own client reads them: by run, the status, parameters, tags, metrics and files."""

import hashlib
import json
import sys

from mlflow.tracking import MlflowClient

client = MlflowClient(sys.argv[1])


def files(run_id, folder=None):
    for file in client.list_artifacts(run_id, folder):
        if file.is_dir:
            yield from files(run_id, file.path)
        else:
            with open(client.download_artifacts(run_id, file.path), "rb") as content:
                yield file.path, hashlib.sha256(content.read()).hexdigest()


def read(run):
    history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {
        "experiment": client.get_experiment(run.info.experiment_id).name,
        "name": run.info.run_name,
        "status": run.info.status,
        "ended": run.info.end_time is not None,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {key: [[row.step, str(row.value)] for row in rows] for key, rows in history.items()},
        "times": sorted({row.timestamp for rows in history.values() for row in rows}),
        "files": dict(files(run.info.run_id)),
    }


experiments = [experiment.experiment_id for experiment in client.search_experiments()]
runs = client.search_runs(experiments)
print(json.dumps({run.info.run_id: read(run) for run in runs}))
