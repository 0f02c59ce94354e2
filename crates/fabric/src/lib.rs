//! Fabric: accelerator, precision, strategy, loggers, checkpoint I/O and seeds of a run, without a loop.

pub mod loggers;
