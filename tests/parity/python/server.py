"""Runs the scripts of this folder, each in a fork of this process, which has the large packages imported already.

Each line of the input is a request, a JSON object of `argv`, `stdout` and `stderr`: the script with its arguments, and the
files for what it prints. Each line of the output is the exit code of the script.
"""

import json
import os
import runpy
import sys
import traceback

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import torch
import torchmetrics.classification
import torchmetrics.text
from torch.utils import tensorboard  # noqa: F401


def execute(request):
    """Becomes the script, and does not return."""
    for descriptor, path in (1, request["stdout"]), (2, request["stderr"]):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = request["argv"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        execute(json.loads(line))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
