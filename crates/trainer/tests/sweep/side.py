"""What others make of a sweep's journal: `side.py COMMAND JOURNAL STUDY …`."""

import io
import json
import sys

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)
command, path, name, *rest = sys.argv[1:]
storage = JournalStorage(JournalFileBackend(path))


def dashboard():
    import optuna_dashboard

    status = []
    request = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies/0", "SERVER_NAME": "here", "SERVER_PORT": "80",
        "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr, "wsgi.url_scheme": "http",
    }  # fmt: skip
    server = optuna_dashboard.wsgi(storage)
    shown = json.loads(b"".join(server(request, lambda *response: status.append(response[0]))))
    states = [trial["state"] for trial in shown["trials"]]
    return {"status": status[0], "states": states, "metric": shown.get("objective_names")}


def read():
    import rustuna

    shown = dashboard()
    study = optuna.load_study(study_name=name, storage=storage)
    of_optuna = {
        "states": [trial.state.name for trial in study.trials],
        "best": study.best_trial.params,
        "metric": study.metric_names,
        "steps": list(study.best_trial.intermediate_values),
        "next": study.ask().number,
    }
    other = rustuna.load_study(study_name=name, storage=rustuna.storages.JournalFileStorage(path))
    of_rustuna = {"trials": len(other.trials), "best": other.best_trial.params}
    print(json.dumps({"optuna": of_optuna, "dashboard": shown, "rustuna": of_rustuna}))


def work(count):
    """Trials of one of several processes."""
    study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
    for _ in range(int(count)):
        trial = study.ask()
        lr = trial.suggest_float("model.lr", 0, 1)
        trial.report(lr, 0)
        trial.should_prune()
        study.tell(trial, (lr - 0.3) ** 2)


{"read": read, "work": work}[command](*rest)
