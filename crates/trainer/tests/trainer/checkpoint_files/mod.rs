//! What is taken out of checkpoint files, and what the program `fulgurite-ckpt` says of them.

mod foreign_text;
mod hostile;
mod load;
mod other_architecture;
mod safetensors;
mod tools;
