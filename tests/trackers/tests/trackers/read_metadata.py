"""Prints a file of a run."""

import sys

from mlflow.tracking import MlflowClient

client = MlflowClient(sys.argv[1])
with open(client.download_artifacts(sys.argv[2], sys.argv[3])) as file:
    print(file.read())
