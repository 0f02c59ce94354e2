//! The public interface of the trainer's state, by subject.

mod logging;
mod optimization;
mod progress;
mod ranks;
mod requests;
