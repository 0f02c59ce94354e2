"""Ray Tune drives a program: `python ray_shim.py target/release/examples/digits --trainer.max_epochs 5`."""

import json
import os
import subprocess
import sys

from ray import tune
from ray.tune.schedulers import ASHAScheduler


def trainable(config, command):
    environment = os.environ | {"FULGURITE_REPORT": "-", "FULGURITE_PARENT": str(os.getpid())}
    options = [f"--{name}={value}" for name, value in config.items()]
    run = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        for line in run.stdout:
            event = json.loads(line) if line.startswith(b'{"event":') else {}
            if event.get("event") == "metrics":
                tune.report({"val_loss": float(event["values"]["val_loss"]), "epoch": event["epoch"]})
    finally:
        # Ray stops a trial by an exception; one that it kills is noticed by FULGURITE_PARENT.
        run.terminate()
        run.wait()


program, *options = sys.argv[1:]
command = [os.path.abspath(program), "fit", *options]
scheduler = ASHAScheduler(grace_period=1, reduction_factor=2)
tuner = tune.Tuner(
    tune.with_parameters(trainable, command=command),
    param_space={"model.lr": tune.loguniform(1e-4, 1e-1)},
    tune_config=tune.TuneConfig(metric="val_loss", mode="min", num_samples=8, scheduler=scheduler),
)
print(tuner.fit().get_best_result().config)
