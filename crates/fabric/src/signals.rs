//! Signals that a run handles.

use std::process::ExitCode;
use std::{fmt, fs};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

/// A signal that a run handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Signal {
    /// SIGHUP: the terminal was closed, or an elastic agent forwards that.
    #[serde(rename = "SIGHUP")]
    Hangup,
    /// SIGINT: Ctrl-C.
    #[serde(rename = "SIGINT")]
    Interrupt,
    /// SIGTERM: what schedulers, `kill` and `timeout` send.
    #[serde(rename = "SIGTERM")]
    Terminate,
    /// SIGUSR1: what SLURM can be configured to send before the time limit of a job.
    #[serde(rename = "SIGUSR1")]
    User1,
    /// SIGUSR2: the other user-defined signal.
    #[serde(rename = "SIGUSR2")]
    User2,
}

impl Signal {
    /// All signals.
    pub const ALL: [Signal; 5] = [Signal::Hangup, Signal::Interrupt, Signal::Terminate, Signal::User1, Signal::User2];

    /// The number of the signal on this system.
    pub fn number(self) -> i32 {
        match self {
            Signal::Hangup => SIGHUP,
            Signal::Interrupt => SIGINT,
            Signal::Terminate => SIGTERM,
            Signal::User1 => SIGUSR1,
            Signal::User2 => SIGUSR2,
        }
    }

    /// The exit code of a process that the signal terminated: 128 plus its number.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(u8::try_from(self.exit_status()).unwrap_or(u8::MAX))
    }

    /// The same as a number.
    pub fn exit_status(self) -> i32 {
        128 + self.number()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Hangup => "SIGHUP",
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
            Signal::User1 => "SIGUSR1",
            Signal::User2 => "SIGUSR2",
        })
    }
}

/// The dispositions of signals in this process: which are ignored, such as by `nohup`, and which are handled.
/// On systems that do not report them, no signal is ignored or handled.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inherited {
    ignored: u64,
    handled: u64,
}

impl Inherited {
    /// Reads them from the system.
    pub fn read() -> Inherited {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
        };
        Inherited { ignored: mask("SigIgn:"), handled: mask("SigCgt:") }
    }

    /// Whether the signal is ignored.
    pub fn ignores(&self, signal: Signal) -> bool {
        self.ignored >> (signal.number() - 1) & 1 == 1
    }

    /// Whether the program has a handler for it.
    pub fn handles(&self, signal: Signal) -> bool {
        self.handled >> (signal.number() - 1) & 1 == 1
    }
}
