//! The program `fulgurite-ckpt`; see [`fulgurite::tools`].

use std::process::ExitCode;

use fulgurite::{Console, tools};

fn main() -> ExitCode {
    ExitCode::from(tools::run(std::env::args_os(), &Console::stderr(), tools::terminal_width()))
}
