//! The arguments of the program, and what they do.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::ckpt;
use crate::console::{self, complain, say};
use crate::create::NewCrate;
use crate::dependency::Dependency;
use crate::libtorch::{self, VERSION};
use crate::setup::{self, Wish};

/// PyTorch Lightning in Rust: libtorch for it, crates that use it, and tools for their files.
#[derive(Parser)]
#[command(name = "fulgurite", version, max_term_width = 100)]
struct Program {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Makes a crate that trains a model, and sets up libtorch for it.
    New(New),
    /// Fetches libtorch, once for all crates, and says where it is.
    ///
    /// In a crate that `fulgurite new` made, its cargo is told. The folder is `libtorch-2.11.0` in $FULGURITE_CACHE, or else
    /// in $XDG_CACHE_HOME/fulgurite, or else in ~/.cache/fulgurite. The variable LIBTORCH is another way to write --libtorch.
    Setup(LibtorchOptions),
    /// Makes one HTML page of runs: curves to zoom, smooth and compare, parameters, checkpoints. It needs no network.
    Report(Report),
    /// Shows how runs stand, again and again: last values and curves, from the files that they write.
    Watch(Watch),
    /// Sends what runs could not send to MLflow, W&B, Trackio or Comet: what is in outboxes in a folder, such as
    /// lightning_logs or wandb.
    ///
    /// An outbox is removed once all of it is sent. Keys (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    /// MLFLOW_TRACKING_TOKEN; TRACKIO_WRITE_TOKEN) are sent only to the server that --server, MLFLOW_TRACKING_URI or
    /// TRACKIO_SERVER_URL names. Runs of W&B, whose files stay, go to the server that WANDB_BASE_URL names, or W&B's
    /// own, with the key of WANDB_API_KEY or ~/.netrc. Experiments of Comet go to the server that COMET_URL_OVERRIDE names, or
    /// Comet's own, with the key of COMET_API_KEY or ~/.comet.config; those without a server become archives for `comet upload`.
    #[cfg(feature = "sync")]
    Sync {
        /// The folder.
        folder: PathBuf,
        /// The address of the server, for runs without one, and if it wants keys.
        #[arg(long, value_name = "URL")]
        server: Option<String>,
    },
    /// Inspects, verifies, compares and converts checkpoint files: what `fulgurite-ckpt` does.
    #[command(disable_help_flag = true)]
    Ckpt {
        /// The arguments of `fulgurite-ckpt`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Args)]
struct New {
    /// The crate's folder, which is new or empty; its last part is the crate's name.
    #[arg(value_name = "NAME")]
    folder: PathBuf,
    /// The crate's name, if not the folder's.
    #[arg(long)]
    name: Option<String>,
    /// A clone of Fulgurite that the crate uses.
    #[arg(long, value_name = "CLONE", conflicts_with = "git")]
    path: Option<PathBuf>,
    /// A git repository with the Fulgurite that the crate uses.
    #[arg(long, value_name = "URL")]
    git: Option<String>,
    #[command(flatten)]
    libtorch: LibtorchOptions,
}

#[derive(Args)]
struct Report {
    /// Folders of runs, such as lightning_logs/version_0, or folders with several.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The page.
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

#[derive(Args)]
struct Watch {
    /// Folders of runs, such as lightning_logs/version_0, or folders with several.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Looks once.
    #[arg(long)]
    once: bool,
}

#[derive(Args)]
struct LibtorchOptions {
    /// A folder with libtorch that is there already.
    #[arg(long, value_name = "FOLDER", conflicts_with = "python")]
    libtorch: Option<PathBuf>,
    /// Use the libtorch of a Python environment's `torch`: of the interpreter that is named (`--python=INTERPRETER`), or of
    /// `python3`.
    #[arg(
        long,
        value_name = "INTERPRETER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "python3"
    )]
    python: Option<OsString>,
}

impl LibtorchOptions {
    fn wish(self) -> Wish {
        Wish::new(self.libtorch, self.python)
    }
}

/// What `cargo xtask new` understands.
#[derive(Parser)]
#[command(name = "cargo xtask new", max_term_width = 100)]
struct NewInClone {
    #[command(flatten)]
    new: New,
}

/// Runs the program with these arguments, its own name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = match Program::try_parse_from(args) {
        Ok(Program { command: Commands::New(options) }) => new(options, |wish| setup::for_user(None, wish)),
        Ok(Program { command: Commands::Setup(options) }) => set_up(options),
        Ok(Program { command: Commands::Report(options) }) => report(&options),
        Ok(Program { command: Commands::Watch(options) }) => watch(&options),
        #[cfg(feature = "sync")]
        Ok(Program { command: Commands::Sync { folder, server } }) => crate::sync::run(&folder, server.as_deref()),
        Ok(Program { command: Commands::Ckpt { args } }) => ckpt::run(env::current_exe().ok().as_deref(), &args),
        Err(error) => return say_mistake(&error),
    };
    exit_code(done)
}

/// Makes a crate that uses the clone of Fulgurite in `root`, and its libtorch, unless the arguments say others: what `cargo
/// xtask new` does.
pub fn new_in_clone(root: &Path, args: &[String]) -> ExitCode {
    let mut options =
        match NewInClone::try_parse_from(["cargo xtask new"].into_iter().chain(args.iter().map(String::as_str))) {
            Ok(NewInClone { new }) => new,
            Err(error) => return say_mistake(&error),
        };
    if options.git.is_none() {
        options.path.get_or_insert_with(|| root.to_owned());
    }
    let has_wish = options.libtorch.libtorch.is_some() || options.libtorch.python.is_some();
    exit_code(new(options, |wish| if has_wish { setup::for_user(None, wish) } else { setup::in_clone(root) }))
}

fn new(options: New, set_up: impl FnOnce(Wish) -> Result<PathBuf>) -> Result<ExitCode> {
    // What takes minutes comes after what may be wrong.
    let dependency = Dependency::of(options.path, options.git)?;
    let new = NewCrate::new(&options.folder, options.name, dependency)?;
    let libtorch = set_up(options.libtorch.wish())?;
    new.write(&libtorch)?;
    say(&format!(
        "Made {}, with libtorch {VERSION} in {}.\n\n  cd {}\n  cargo run -- fit    # trains; the first build takes some minutes\n  cargo test",
        new.folder().display(),
        libtorch.display(),
        quoted(&options.folder),
    ));
    Ok(ExitCode::SUCCESS)
}

fn set_up(options: LibtorchOptions) -> Result<ExitCode> {
    let root = env::current_dir().ok().and_then(|folder| crate_that_includes_libtorch(&folder));
    let libtorch = setup::for_user(root.as_deref(), options.wish())?;
    say(&format!("libtorch {VERSION} is ready in {}.", libtorch.display()));
    match root {
        Some(root) => say(&format!("The cargo of {} is told so.", root.display())),
        None => say(&format!(
            "A crate that `fulgurite new` has not made finds it by these lines of its .cargo/config.toml:\n\n{}",
            libtorch::cargo_config(&libtorch)?
        )),
    }
    Ok(ExitCode::SUCCESS)
}

fn report(options: &Report) -> Result<ExitCode> {
    let page = fulgurite_report::report(&options.runs)?;
    // Never half a page, also if a browser reloads it meanwhile.
    let beside = options.output.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&beside, page)
        .and_then(|()| fs::rename(&beside, &options.output))
        .inspect_err(|_| _ = fs::remove_file(&beside))
        .with_context(|| format!("cannot write {}", options.output.display()))?;
    say(&format!("Open {} in a browser.", options.output.display()));
    Ok(ExitCode::SUCCESS)
}

fn watch(options: &Watch) -> Result<ExitCode> {
    loop {
        let begun = Instant::now();
        let text = fulgurite_report::watch(&options.runs, console::columns())?;
        match options.once {
            true => say(text.trim_end()),
            // As for any filter, a pipe that is closed is the end.
            false if console::show_anew(&text).is_err() => return Ok(ExitCode::SUCCESS),
            false => {}
        }
        if options.once {
            return Ok(ExitCode::SUCCESS);
        }
        // Large files are looked at less often.
        std::thread::sleep(Duration::from_secs(options.interval).max(begun.elapsed() * 10));
    }
}

/// The folder whose `.cargo/config.toml` includes what set-up writes: `folder` or one above it.
fn crate_that_includes_libtorch(folder: &Path) -> Option<PathBuf> {
    let includes = |folder: &&Path| {
        let config = fs::read_to_string(folder.join(".cargo").join("config.toml"));
        config.is_ok_and(|text| text.contains("\"libtorch.toml\""))
    };
    folder.ancestors().find(includes).map(Path::to_owned)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-~+@".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Help, or an error in the arguments.
fn say_mistake(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    match error.use_stderr() {
        true => complain(text.trim_end()),
        false => say(text.trim_end()),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn exit_code(done: Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        complain(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}
