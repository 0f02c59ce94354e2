"""The time of a step, as in `src/stopwatch.rs`."""

import json
import os
import statistics
import time


class Stopwatch:
    def __init__(self, warmup, blocks, steps_per_block):
        self.warmup, self.blocks, self.steps_per_block = warmup, blocks, steps_per_block
        self.total_steps = warmup + blocks * steps_per_block
        self.steps, self.startup_us, self.marks = 0, None, []

    def step_ended(self):
        self.steps += 1
        if self.steps == 1:
            self.startup_us = (time.time_ns() - int(os.environ["FULGURITE_BENCH_STARTED"])) / 1e3
        timed = self.steps - self.warmup
        if timed >= 0 and timed % self.steps_per_block == 0:
            self.marks.append(time.perf_counter())

    def write(self, path):
        assert len(self.marks) == self.blocks + 1, f"{self.steps} steps were run, {self.total_steps} were planned"
        blocks = [(end - start) * 1e6 / self.steps_per_block for start, end in zip(self.marks, self.marks[1:])]
        with open(path, "w") as file:
            json.dump({"step_us": statistics.median(blocks), "startup_us": self.startup_us}, file)
