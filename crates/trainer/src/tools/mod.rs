//! The program `fulgurite-ckpt`: inspects, verifies, compares and converts checkpoint files. The program `fulgurite` of the
//! crate `fulgurite-cli`, which needs no libtorch, runs it as `fulgurite ckpt`.
//!
//! ```sh
//! fulgurite-ckpt show epoch=2-step=69.ckpt --tensors
//! fulgurite-ckpt verify lightning_logs
//! fulgurite-ckpt diff a.ckpt b.ckpt --atol 1e-6
//! fulgurite-ckpt convert best.ckpt model.safetensors --dtype bf16
//! fulgurite-ckpt consolidate shards/ model.safetensors
//! ```
//!
//! Files may come from Fulgurite, Lightning or plain PyTorch. No code in a file is executed.

mod consolidate;
mod convert;
mod diff;
mod dtype;
mod findings;
mod show;
mod tensors;
mod text;
mod verify;

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::{Parser, Subcommand};
use fulgurite_engine::{Console, Error};

use findings::Findings;

/// Inspects checkpoint files: Lightning's .ckpt, PyTorch's .pt, .safetensors.
#[derive(Parser)]
#[command(name = "fulgurite-ckpt", version, max_term_width = 100)]
struct Program {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    Show(show::Show),
    Verify(verify::Verify),
    Diff(diff::Diff),
    Convert(convert::Convert),
    Consolidate(consolidate::Consolidate),
}

/// Runs the program with these arguments, its own name first. `width` is that of the terminal, in
/// columns; without it, lines have any length.
///
/// The result is for the exit status: 0, 1 for files that differ or are damaged, 2 for errors.
pub fn run(arguments: impl IntoIterator<Item = OsString>, console: &Console, width: Option<usize>) -> u8 {
    let program = match Program::try_parse_from(arguments) {
        Ok(program) => program,
        Err(error) if error.use_stderr() => {
            console.print(&mistake(&error));
            return 2;
        }
        Err(help) => {
            console.print_out(&help.to_string());
            return 0;
        }
    };
    let found: Result<Findings, Error> = match program.tool {
        Tool::Show(show) => show.run(width).map(Findings::from),
        Tool::Verify(verify) => verify.run(),
        Tool::Diff(diff) => diff.run(width),
        Tool::Convert(convert) => convert.run().map(Findings::from),
        Tool::Consolidate(consolidate) => consolidate.run().map(Findings::from),
    };
    match found {
        Ok(Findings { text, good }) => {
            console.print_out(&text);
            u8::from(!good)
        }
        Err(error) => {
            console.print(&format!("error: {error}"));
            2
        }
    }
}

/// The error in the arguments, in one line; the help, if there were none.
fn mistake(error: &clap::Error) -> String {
    let text = error.to_string();
    match error.kind() {
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => text.trim_end().to_owned(),
        _ => {
            let first: Vec<&str> = text.split("\n\n").next().unwrap_or_default().split_whitespace().collect();
            first.join(" ")
        }
    }
}

/// The width of the terminal that standard output goes to, if it is one.
pub fn terminal_width() -> Option<usize> {
    let width = || ::console::Term::stdout().size_checked().map_or(80, |(_, columns)| columns.into());
    std::io::stdout().is_terminal().then(width)
}
