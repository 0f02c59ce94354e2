//! What is taken out of checkpoint files, and what the program `fulgurite` says of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod foreign_text;
mod hostile;
mod load;
mod safetensors;
mod tools;
