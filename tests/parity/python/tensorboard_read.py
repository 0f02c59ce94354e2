"""Reads an event folder with the tensorboard package, and builds the histogram torch would have written.

Usage: tensorboard_read.py LOG_DIR
"""

import io
import json
import os
import sys

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing import data_provider, event_accumulator, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import make_histogram

EVERYTHING = {kind: 0 for kind in ("scalars", "tensors", "images", "histograms", "compressedHistograms", "graph")}


class Flags:
    generic_data = "auto"


class Context:
    """The little of `TBContext` that the hparams plugin reads."""

    def __init__(self, folder):
        multiplexer = plugin_event_multiplexer.EventMultiplexer(size_guidance=EVERYTHING)
        multiplexer.AddRunsFromDirectory(folder)
        multiplexer.Reload()
        self.multiplexer = multiplexer
        self.data_provider = data_provider.MultiplexerDataProvider(multiplexer, folder)
        self.flags = Flags()
        self.logdir = folder


def of_plugin(events, name):
    """The tags of a plugin; it is not known where nothing was written for it."""
    try:
        return sorted(events.PluginTagToContent(name))
    except KeyError:
        return []


def histogram(value):
    return {
        "stats": [value.min, value.max, value.num, value.sum, value.sum_squares],
        "limits": list(value.bucket_limit),
        "counts": list(value.bucket),
    }


def image(event):
    pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    return {"step": event.step, "size": [event.width, event.height], "pixels": pixels.tolist()}


def hparams(folder):
    """The table as the plugin serves it."""
    context = backend_context.Context(Context(folder))
    everything = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    request = api_pb2.ListSessionGroupsRequest(allowed_statuses=everything, start_index=0, slice_size=100)
    experiment = get_experiment.Handler(RequestContext(), context, "", api_pb2.GetExperimentRequest()).run()
    groups = list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups
    if not groups:
        return None
    values = {}
    for name, value in groups[0].hparams.items():
        values[name] = getattr(value, value.WhichOneof("kind"))
    session = groups[0].sessions[0]
    return {
        "columns": {info.name: api_pb2.DataType.Name(info.type) for info in experiment.hparam_infos},
        "metrics": {m.name.tag: [m.value, m.training_step] for m in session.metric_values},
        "values": values,
        "status": api_pb2.Status.Name(session.status),
        "seconds": session.end_time_secs - session.start_time_secs,
    }


folder = sys.argv[1]
events = event_accumulator.EventAccumulator(folder, size_guidance=EVERYTHING)
events.Reload()
tags = events.Tags()

sixes = torch.arange(10_000, dtype=torch.float64).mul_(7919).remainder_(10007).sub_(5000).div_(1000).pow_(3)
with SummaryWriter(os.path.join(folder, "torch")) as writer:
    expected = make_histogram(sixes.float().numpy().astype(float), writer.default_bins)

texts = {tag: [[e.step, e.tensor_proto.string_val[0].decode()] for e in events.Tensors(tag)] for tag in tags["tensors"]}
print(
    json.dumps({
        "file_version": events.file_version,
        "scalars": {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]},
        "wall_times": [e.wall_time for e in events.Scalars("loss")],
        "texts": {tag: values for tag, values in texts.items() if tag.endswith("/text_summary")},
        "text_plugin": of_plugin(events, "text"),
        "images": {tag: [image(e) for e in events.Images(tag)] for tag in tags["images"]},
        "histograms": {tag: [histogram(e.histogram_value) for e in events.Histograms(tag)] for tag in tags["histograms"]},
        "expected_histogram": histogram(expected),
        "hparams": hparams(folder),
    })
)
