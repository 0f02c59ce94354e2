//! The program `fulgurite`; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fulgurite_cli::run(std::env::args_os())
}
