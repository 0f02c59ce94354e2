"""Checks an archive against the schemas of the installed package, and prints it as JSON: what it says of the experiment, its
messages, and its files."""

import json
import sys
import zipfile

from comet_ml import schemas

validators = {
    "metric_msg": schemas.get_metric_msg_validator(),
    "parameter_msg": schemas.get_parameter_msg_validator(),
    "log_other": schemas.get_log_other_msg_validator(),
    "file_upload": schemas.get_upload_msg_validator(),
}
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    experiment = json.loads(archive.read("experiment.json"))
    schemas.get_experiment_file_validator().validate(experiment)
    messages = [json.loads(line) for line in archive.read("messages.json").splitlines()]
    for message in messages:
        validators[message["type"]].validate(message["payload"])
    files = {name: len(archive.read(name)) for name in archive.namelist()}
print(json.dumps({"experiment": experiment, "messages": messages, "files": files}))
