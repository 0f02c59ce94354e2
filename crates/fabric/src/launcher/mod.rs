//! The program's own launcher: it starts itself again, once for each process of the run on this machine.
//!
//! The process that the user starts becomes a supervisor, and is no rank itself. It hosts the store where the ranks find
//! each other (so that a free port is known before it is needed), and then:
//!
//! - every rank runs the same command line in the same folder, with its rank in environment variables;
//! - local rank 0 has the terminal; the output of the others is forwarded line by line, as `[rank 1] …`;
//! - SIGTERM, SIGHUP, SIGINT, SIGUSR1 and SIGUSR2 are forwarded to all ranks. After a second signal to terminate
//!   the ranks are killed;
//! - when a rank dies, the others are sent SIGTERM, and SIGKILL some seconds later. The supervisor says which rank died and
//!   how, repeats the end of its standard error, and ends with its exit code: 128 and the signal's number
//!   for one that was killed;
//! - on several nodes, each supervisor tells the others when a rank of its node dies, and they do the same. What they say
//!   is signed with the run's token ([`RUN_TOKEN`](crate::environments::RUN_TOKEN)), and unsigned messages are ignored;
//! - the store takes connections of this machine alone where there is one node;
//! - when the supervisor itself is killed, the kernel kills the ranks (on Linux).
//!
//! A rank that shut down after a signal (by its exit code: 143 after SIGTERM) has not failed: the others get the time to
//! shut down, too.
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

/// Starts the ranks of this machine, watches over them until all have ended, and returns the exit code that the program
/// should end with.
///
/// Call it on a thread that lives as long as the program, before anything else: all that follows in the
/// program is the work of the ranks.
///
/// # Errors
///
/// Fails if the program cannot be started again, or if the port is in use. All started ranks are ended then.
pub fn launch(plan: &LaunchPlan) -> Result<i32, FabricError> {
    supervisor::supervise(plan)
}
