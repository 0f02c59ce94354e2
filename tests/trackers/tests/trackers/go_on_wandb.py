"""W&B's own client goes on with a run. Arguments: the project, the run, and a folder. Prints its configuration."""

import json
import sys

import wandb

run = wandb.init(project=sys.argv[1], id=sys.argv[2], resume="must", dir=sys.argv[3])
print(json.dumps({name: run.config[name] for name in ["width", "optim"]}))
run.log({"by the client": 1.0})
run.finish()
