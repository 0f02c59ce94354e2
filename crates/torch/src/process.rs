//! Child processes: signals to them, and an end together with their parent.

use std::io;
use std::process::{Child, Command};

/// Makes the kernel kill the child as soon as the thread that starts it exits for any reason, so that no child outlives
/// a parent that was killed itself. The thread should be one that waits for the child. Does nothing on systems other
/// than Linux.
pub fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;

        // SAFETY: only reads the id of this process.
        let parent = unsafe { libc::getpid() };
        let between_fork_and_exec = move || {
            // SAFETY: sets an attribute of the new process; allowed after a fork in a process with threads.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: as above. A parent that died before the call above is not noticed by it.
            if unsafe { libc::getppid() } != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        };
        // SAFETY: the code between fork and exec only makes system calls, and allocates nothing.
        unsafe { command.pre_exec(between_fork_and_exec) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Sends a signal to a child that has not been waited for yet.
///
/// # Errors
///
/// Fails if the system reports an error, or if it has no signals.
pub fn send_signal(child: &Child, signal: i32) -> io::Result<()> {
    #[cfg(unix)]
    {
        let id = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        // SAFETY: the id is that of a child of ours, which keeps it until we wait for it.
        if unsafe { libc::kill(id, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    #[cfg(not(unix))]
    {
        let _ = (child, signal);
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_signal_reaches_a_child() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        send_signal(&child, libc::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let start = || {
            let mut command = Command::new("sleep");
            command.arg("60").stdin(Stdio::null());
            end_with_parent(&mut command);
            command.spawn().unwrap()
        };
        let mut child = std::thread::spawn(start).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
