//! Output that a program prints before libtorch is initialized.
//!
//! A program that is linked with libtorch spends some 0.4 s before `main`: tens of thousands of operators register
//! themselves while the libraries are initialised. `--help` need not wait for that: the system's loader calls the
//! functions in the section `.preinit_array` of an executable before it initialises any library.
//! [`before_libtorch!`](crate::before_libtorch) puts a function there, on Linux with glibc; elsewhere it does nothing, and
//! the output is printed later.

use std::ffi::{CStr, c_char, c_int};
use std::io::Write;

/// Makes a program handle some arguments before libtorch's libraries are initialised. Place it beside `main`.
///
/// `$wanted` (`fn(&[String]) -> bool`) decides from the arguments, without the program's name, whether `$answer`
/// (`fn(Vec<String>) -> Option<String>`) has something to print. They must not use libtorch; if they do, or if
/// `$answer` returns `None`, the program starts as usual.
///
/// ```
/// fn wanted(args: &[String]) -> bool {
///     args == ["--version"]
/// }
///
/// fn answer(_: Vec<String>) -> Option<String> {
///     Some("1.0.0\n".into())
/// }
///
/// fulgurite_torch::before_libtorch!(wanted, answer);
///
/// fn main() {}
/// ```
#[macro_export]
macro_rules! before_libtorch {
    ($wanted:expr, $answer:expr) => {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        #[allow(unsafe_code)]
        const _: () = {
            extern "C" fn hook(
                argc: ::core::ffi::c_int,
                argv: *const *const ::core::ffi::c_char,
                env: *const *const ::core::ffi::c_char,
            ) {
                // SAFETY: the loader calls this with the arguments and the environment of the process, before any thread
                // is there.
                unsafe { $crate::startup::answer(argc, argv, env, $wanted, $answer) }
            }
            #[used]
            #[unsafe(link_section = ".preinit_array")]
            static HOOK: extern "C" fn(
                ::core::ffi::c_int,
                *const *const ::core::ffi::c_char,
                *const *const ::core::ffi::c_char,
            ) = hook;
        };
    };
}

/// Prints the output and exits the process, if `wanted` returns `true` and there is output; otherwise returns.
///
/// The output is produced in a child process: if it calls into a library that is not initialised yet, the child
/// crashes, and the program starts as usual.
///
/// # Safety
///
/// `argv` and `env` are those of the process, each ended by a null pointer; no other thread runs.
#[doc(hidden)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub unsafe fn answer(
    argc: c_int,
    argv: *const *const c_char,
    env: *const *const c_char,
    wanted: fn(&[String]) -> bool,
    answer: fn(Vec<String>) -> Option<String>,
) {
    unsafe extern "C" {
        static mut environ: *const *const c_char;
    }
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the caller says that `argv` has `argc` strings, which live as long as the process.
    let text = |index| unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy().into_owned();
    let args: Vec<String> = (1..count).map(text).collect();
    if !wanted(&args) {
        return;
    }
    // SAFETY: there is one thread, and libc sets the same value when it is initialised.
    unsafe { environ = env };
    // SAFETY: there is one thread, so the child has all of the process.
    match unsafe { libc::fork() } {
        0 => {
            std::panic::set_hook(Box::new(|_| {}));
            let printed = answer(args).map(|text| {
                let mut out = std::io::stdout();
                out.write_all(crate::printable(&text).as_bytes()).and_then(|()| out.flush())
            });
            // SAFETY: ends the process at once, without the libraries' clean-up: they were never initialised.
            unsafe { libc::_exit(if matches!(printed, Some(Ok(()))) { 0 } else { 1 }) }
        }
        child if child > 0 => {
            let mut status = 0;
            // SAFETY: `status` lives for the call.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            // A closed pipe is not an error: its reader has read enough.
            let is_answered = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
                || libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGPIPE;
            if waited == child && is_answered {
                // SAFETY: as above.
                unsafe { libc::_exit(0) }
            }
        }
        // No child process can be started, so the output is printed later.
        _ => {}
    }
}
