//! The program's own launcher: it starts itself again, once for each process of the run on this machine.
//!
//! The process that the user starts becomes a supervisor, and is not a rank itself. It hosts the store for the rendezvous
//! of the ranks (so that a free port is known before it is needed), and then:
//!
//! - every rank runs the same command line in the same folder, with its rank in environment variables;
//! - local rank 0 has the terminal; the output of the others is forwarded line by line, as `[rank 1] …`;
//! - SIGTERM, SIGHUP, SIGINT, SIGUSR1 and SIGUSR2 are forwarded to all ranks. After a second signal to terminate
//!   the ranks are killed;
//! - when a rank dies, the others are sent SIGTERM, and SIGKILL some seconds later. The supervisor reports which rank died and
//!   how, repeats the end of its standard error, and exits with the code of that rank: 128 plus the number of the signal
//!   for one that was killed;
//! - on several nodes, each supervisor reports a rank that dies to the others, which then do the same. These messages are
//!   signed with the run's token ([`RUN_TOKEN`](crate::environments::RUN_TOKEN)), and unsigned messages are ignored;
//! - on a single node the store accepts connections from this machine only;
//! - when the supervisor itself is killed, the kernel kills the ranks (on Linux).
//!
//! A rank that shut down on a signal (according to its exit code: 143 after SIGTERM) has not failed: the others get time
//! to shut down, too.
//!
//! ```no_run
//! use fulgurite_fabric::{environments, launcher};
//! use fulgurite_fabric::launcher::LaunchPlan;
//!
//! # fn main() -> Result<(), fulgurite_fabric::FabricError> {
//! let environment = environments::current()?;
//! if !environment.creates_processes_externally() {
//!     let code = launcher::launch(&LaunchPlan::new(environment.as_ref(), 2, 1)?)?;
//!     std::process::exit(code);
//! }
//! // From here on, this is one of two ranks.
//! # Ok(())
//! # }
//! ```

mod failure;
mod listener;
mod peers;
mod plan;
mod relay;
mod store;
mod supervisor;

pub use plan::LaunchPlan;

use crate::FabricError;

/// Starts the ranks of this machine, supervises them until all have exited, and returns the exit code that the program
/// should exit with.
///
/// Call it before anything else, on a thread that lives as long as the program: everything that follows in the program is
/// executed by the ranks.
///
/// # Errors
///
/// Fails if the program cannot be started again, or if the port is in use. All started ranks are killed in that case.
pub fn launch(plan: &LaunchPlan) -> Result<i32, FabricError> {
    supervisor::supervise(plan)
}
