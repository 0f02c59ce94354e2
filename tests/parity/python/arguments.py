"""The names of the arguments, methods and properties of Lightning's Trainer."""

import inspect
import json

from lightning.pytorch import Trainer

public = [name for name in vars(Trainer) if not name.startswith("_")]
properties = [name for name in public if isinstance(vars(Trainer)[name], property)]
methods = [name for name in public if name not in properties]
arguments = [name for name in inspect.signature(Trainer.__init__).parameters if name != "self"]
print(json.dumps({"arguments": arguments, "methods": methods, "properties": properties}))
