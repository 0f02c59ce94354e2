"""Optuna drives a program: `python optuna_shim.py target/release/examples/digits --trainer.max_epochs 5`."""

import json
import os
import subprocess
import sys

import optuna


def objective(trial):
    lr = trial.suggest_float("model.lr", 1e-4, 1e-1, log=True)
    program, *options = sys.argv[1:]
    command = [program, "fit", *options, f"--model.lr={lr}", f"--trainer.default_root_dir=trial_{trial.number}"]
    environment = os.environ | {"FULGURITE_REPORT": "-", "FULGURITE_PARENT": str(os.getpid()), "FULGURITE_PRUNE": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        for line in run.stdout:
            event = json.loads(line) if line.startswith(b'{"event":') else {}
            if event.get("event") == "metrics":
                trial.report(float(event["values"]["val_loss"]), event["epoch"])
                if trial.should_prune():
                    run.terminate()
                    raise optuna.TrialPruned
            elif event.get("event") == "end" and event["status"] == "success":
                return float(event["values"]["val_loss"])
    raise RuntimeError(f"the program ended with {run.returncode}")


study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
study.optimize(objective, n_trials=int(os.environ.get("TRIALS", "20")), n_jobs=2, catch=RuntimeError)
print(study.best_params, study.best_value)
