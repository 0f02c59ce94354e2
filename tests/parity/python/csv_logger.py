"""Lightning's CSVLogger, told the same as ours; and its reader on the hparams.yaml we wrote.

Usage: csv_logger.py CALLS SAVE_DIR OUR_HPARAMS. CALLS is a JSON list of {"metrics": [[name, text]], "step": n},
{"hparams": {...}} and {"save": null}.
"""

import json
import sys
import warnings

import yaml
from lightning.pytorch.core.saving import load_hparams_from_yaml
from lightning.pytorch.loggers import CSVLogger

warnings.filterwarnings("ignore")
calls, save_dir, our_hparams = sys.argv[1:]

logger = CSVLogger(save_dir, flush_logs_every_n_steps=3)
with open(calls, encoding="utf-8") as file:
    for call in json.load(file):
        if "metrics" in call:
            # The trainer's epoch is an int, everything that was logged a float.
            metrics = {name: int(text) if name == "epoch" else float(text) for name, text in call["metrics"]}
            logger.log_metrics(metrics, call["step"])
        elif "hparams" in call:
            logger.log_hyperparams(call["hparams"])
        else:
            logger.save()
logger.finalize("success")

with open(our_hparams, encoding="ascii") as file:
    safe = yaml.safe_load(file)
print(json.dumps({"log_dir": logger.log_dir, "lightning": dict(load_hparams_from_yaml(our_hparams)), "safe": safe}))
