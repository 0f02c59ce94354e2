"""Ray Tune drives a program: `python ray_shim.py target/release/examples/digits --trainer.max_epochs 5`."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

from ray import tune
from ray.tune.schedulers import ASHAScheduler


def trainable(config, command):
    environment = os.environ | {"FULGURITE_REPORT": "-", "FULGURITE_PARENT": str(os.getpid()), "FULGURITE_PRUNE": "1"}
    options = [f"--{name}={value}" for name, value in config.items()]
    if before := tune.get_checkpoint():  # of an attempt that failed
        options.append(f"--ckpt_path={before.to_directory()}/trial.ckpt")
    run = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        values = None  # not reported yet: their checkpoint may follow
        for line in run.stdout:
            event = json.loads(line) if line.startswith(b'{"event":') else {}
            if event.get("event") == "checkpoint" and values:
                # It may have been replaced by a later one, which follows.
                with tempfile.TemporaryDirectory() as folder, contextlib.suppress(FileNotFoundError):
                    shutil.copy(event["path"], f"{folder}/trial.ckpt")
                    tune.report(values, checkpoint=tune.Checkpoint.from_directory(folder))
                    values = None
            elif event.get("event") in ("metrics", "end") and values:
                tune.report(values)
                values = None
            if event.get("event") == "metrics":
                values = {"val_loss": float(event["values"]["val_loss"]), "epoch": event["epoch"]}
        if run.wait() != 0:
            raise RuntimeError(f"the program ended with {run.returncode}")
    finally:
        # Ray stops a trial by an exception; one that it kills is noticed by FULGURITE_PARENT.
        run.terminate()
        run.wait()


program, *options = sys.argv[1:]
command = [os.path.abspath(program), "fit", *options]
tuner = tune.Tuner(
    tune.with_parameters(trainable, command=command),
    param_space={"model.lr": tune.loguniform(1e-4, 1e-1)},
    tune_config=tune.TuneConfig(
        metric="val_loss",
        mode="min",
        num_samples=int(os.environ.get("TRIALS", "8")),
        scheduler=ASHAScheduler(grace_period=1, reduction_factor=2),
    ),
    run_config=tune.RunConfig(
        name="ray_shim",
        storage_path=os.path.abspath("ray_results"),
        failure_config=tune.FailureConfig(max_failures=2),
    ),
)
print(tuner.fit().get_best_result().config)
