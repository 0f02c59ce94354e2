//! Command-line arguments, before they are resolved against the schema.

use super::check::{nearest, wrong};
use super::layout::Subcommand;
use fulgurite_engine::Error;

/// The request of the arguments.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    /// Print help of the program or a subcommand.
    Help(Option<Subcommand>),
    /// The options of a class: `--optimizer.help AdamW`.
    ClassHelp {
        option: String,
        class: Option<String>,
    },
    /// Print the shell completion script.
    Completions(String),
    Run(RunRequest),
}

#[derive(Debug, PartialEq)]
pub(super) struct RunRequest {
    pub subcommand: Subcommand,
    pub arguments: Vec<Argument>,
    /// The flags of `--print_config`, if it was there.
    pub print_config: Option<Vec<String>>,
}

/// One argument, in the given order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Argument {
    /// A file for the whole program, with a section for each subcommand.
    ProgramConfig(String),
    /// A file for the subcommand.
    Config(String),
    /// `--name value`; with `append`, `--name+=value`. Without a value, a switch.
    Set { name: String, append: bool, value: Option<String> },
}

/// Parses the arguments after the program's name.
pub(super) fn parse(args: &[String]) -> Result<Request, Error> {
    let mut args = args.iter().map(String::as_str).peekable();
    let mut arguments = Vec::new();
    let subcommand = loop {
        let Some(arg) = args.next() else {
            return if arguments.is_empty() { Ok(Request::Help(None)) } else { wrong(no_subcommand()) };
        };
        match arg.split_once('=').map_or((arg, None), |(name, value)| (name, Some(value))) {
            ("-h" | "--help" | "help", None) => return Ok(Request::Help(None)),
            ("-c" | "--config", value) => {
                let file = value.or_else(|| args.next()).filter(|file| !file.is_empty());
                let Some(file) = file else { return wrong("--config needs the name of a file".into()) };
                arguments.push(Argument::ProgramConfig(file.into()));
            }
            ("completions", None) => {
                let shell = args.next().unwrap_or_default();
                return Ok(Request::Completions(shell.into()));
            }
            (name, None) if !name.starts_with('-') => match Subcommand::from_name(name) {
                Some(subcommand) => break subcommand,
                None => return wrong(unknown_subcommand(name)),
            },
            (name, _) => return wrong(format!("{name} comes before the subcommand; {}", no_subcommand())),
        }
    };
    let mut print_config = None;
    while let Some(arg) = args.next() {
        let (name, given) = arg.split_once('=').map_or((arg, None), |(name, value)| (name, Some(value)));
        let mut value = || given.or_else(|| args.next_if(|next| !next.starts_with("--"))).map(String::from);
        match name {
            "-h" | "--help" => return Ok(Request::Help(Some(subcommand))),
            "-c" | "--config" => match value().filter(|file| !file.is_empty()) {
                Some(file) => arguments.push(Argument::Config(file)),
                None => return wrong("--config needs the name of a file".into()),
            },
            "--resume" if subcommand == Subcommand::Fit => {
                let from = value().unwrap_or_else(|| "auto".into());
                arguments.push(Argument::Set { name: "ckpt_path".into(), append: false, value: Some(from) });
            }
            "--resume" => {
                return wrong("--resume is of fit; write --ckpt_path, with a file, a run folder or `auto`".into());
            }
            "--print_config" => {
                let flags = given.unwrap_or_default().split(',').filter(|flag| !flag.is_empty());
                print_config = Some(print_flags(flags)?);
            }
            _ => {
                let Some(option) = name.strip_prefix("--").filter(|option| !option.is_empty()) else {
                    return wrong(format!("`{arg}` is not an option; write --name value or --name=value"));
                };
                if let Some(option) = option.strip_suffix(".help") {
                    return Ok(Request::ClassHelp { option: option.into(), class: value() });
                }
                let (name, append) = option.strip_suffix('+').map_or((option, false), |name| (name, true));
                arguments.push(Argument::Set { name: name.into(), append, value: value() });
            }
        }
    }
    Ok(Request::Run(RunRequest { subcommand, arguments, print_config }))
}

fn print_flags<'a>(flags: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Error> {
    const KNOWN: [&str; 3] = ["comments", "skip_default", "skip_null"];
    flags
        .map(|flag| match KNOWN.contains(&flag) {
            true => Ok(flag.to_owned()),
            false => wrong(format!("--print_config takes {}, not `{flag}`", KNOWN.join(", "))),
        })
        .collect()
}

fn names() -> impl Iterator<Item = &'static str> {
    Subcommand::ALL.into_iter().map(Subcommand::name).chain(["completions"])
}

fn no_subcommand() -> String {
    format!("write one of {} first", names().collect::<Vec<_>>().join(", "))
}

fn unknown_subcommand(given: &str) -> String {
    match nearest(given, names()) {
        Some(near) => format!("there is no subcommand `{given}`; did you mean `{near}`?"),
        None => format!("there is no subcommand `{given}`; there are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

/// Whether [`Cli::answer`](super::Cli::answer) can answer, unless there is an error.
#[doc(hidden)]
pub fn is_answered_early(args: &[String]) -> bool {
    matches!(parse(args), Ok(Request::Help(_) | Request::ClassHelp { .. } | Request::Completions(_)))
}
