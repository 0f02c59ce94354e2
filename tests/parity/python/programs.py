"""Runs programs of the folder `programs`, each with its arguments: `{"vae": ["--max-epochs", "3"], …}`."""

import json
import logging
import runpy
import sys
import warnings
from pathlib import Path

import torch


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for name, arguments in json.loads(sys.argv[1]).items():
        sys.argv = [name, *arguments]
        runpy.run_path(str(Path(__file__).with_name("programs") / f"{name}.py"), run_name="__main__")
    print("{}")


main()
