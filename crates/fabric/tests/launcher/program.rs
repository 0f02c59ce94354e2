//! The program that is launched: `program DEVICES NUM_NODES ACTION…`.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fulgurite_fabric::FabricError;
use fulgurite_fabric::environments::{self, ClusterEnvironment};
use fulgurite_fabric::launcher::{self, LaunchPlan};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Makes the test a program.
pub(crate) const WORD: &str = "program";
/// Seconds that are given to the other ranks when one dies.
pub(crate) const GRACE: &str = "TEST_GRACE";
/// A value that must not differ between ranks.
pub(crate) const FACT: &str = "TEST_FACT";

pub(crate) fn run(args: &[String]) -> ExitCode {
    match start(args) {
        Ok(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("error: {error}");
            let _ = environments::record_failure(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn start(args: &[String]) -> Result<i32, FabricError> {
    let (devices, num_nodes) = (args[0].parse().unwrap(), args[1].parse().unwrap());
    let environment = environments::current()?;
    environment.validate_settings(devices, num_nodes)?;
    if !environment.creates_processes_externally() {
        let grace = std::env::var(GRACE).map_or(5.0, |seconds| seconds.parse().unwrap());
        let plan = LaunchPlan::new(environment.as_ref(), devices, num_nodes)?
            .grace_period(Duration::from_secs_f64(grace))
            .variable("TEST_VARIABLE", "from the supervisor");
        return launcher::launch(&plan);
    }
    work(environment.as_ref(), &args[2..])
}

/// Begins a line with the rank, because rank 0's output is not marked.
fn say(environment: &dyn ClusterEnvironment, text: &str) {
    println!("{}: {text}", environment.global_rank());
}

fn is(environment: &dyn ClusterEnvironment, rank: &str) -> bool {
    environment.global_rank().to_string() == rank
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(600));
    }
}

fn work(environment: &dyn ClusterEnvironment, action: &[String]) -> Result<i32, FabricError> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let words: Vec<&str> = action.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["who", rest @ ..] => {
            let names =
                ["NODE_RANK", "LOCAL_RANK", "RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "MASTER_ADDR", "TEST_VARIABLE"];
            let told: Vec<String> = names.iter().map(|name| format!("{name}={}", variable(name))).collect();
            say(environment, &told.join(" "));
            say(environment, &format!("{rest:?} in {}", std::env::current_dir().unwrap().display()));
            Ok(0)
        }
        // Starts a run of its own.
        ["nested"] => {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let output = command.args([WORD, "2", "1", "threads"]).env("OMP_NUM_THREADS", "5").output().unwrap();
            let mut lines: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
            lines.sort_unstable();
            say(environment, &lines.join(", "));
            Ok(0)
        }
        ["threads"] => {
            say(environment, &variable("OMP_NUM_THREADS"));
            Ok(0)
        }
        ["stdin"] => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).unwrap();
            say(environment, &format!("read {text:?}"));
            Ok(0)
        }
        // Rank 0 writes to the same pipe by itself, where long lines of two processes may mix.
        ["lines", _] if is(environment, "0") => Ok(0),
        ["lines", count] => {
            let long = variable("RANK").repeat(5000);
            for _ in 0..count.parse().unwrap() {
                println!("{long}");
                eprintln!("{long}");
            }
            print!("unfinished");
            Ok(0)
        }
        ["fail", rank, code] => {
            if is(environment, rank) {
                for n in 0..30 {
                    eprintln!("word {n}");
                }
                return Ok(code.parse().unwrap());
            }
            sleep()
        }
        ["abort", rank] if is(environment, rank) => std::process::abort(),
        // A process that outlives rank 1, and has its pipes.
        ["orphan"] => {
            if is(environment, "1") {
                let script = "sleep 600 & echo 1: sleeps as $!";
                std::process::Command::new("sh").args(["-c", script]).status().unwrap();
            }
            Ok(0)
        }
        ["abort" | "sleep", ..] => {
            say(environment, &format!("sleeps as {}", std::process::id()));
            sleep()
        }
        ["trap", codes @ ..] => Ok(trap(environment, codes)),
        ["meet", rest @ ..] => meet(environment, rest),
        ["outsiders", keys @ ..] => {
            super::outsiders::set_from_outside(environment, keys);
            Ok(0)
        }
        ["listeners"] => {
            let found = super::outsiders::listeners(environment.main_port().unwrap());
            say(environment, &format!("{found:?}"));
            Ok(0)
        }
        ["token"] => {
            let token = variable(environments::RUN_TOKEN);
            let shown = std::fs::read_to_string("/proc/self/cmdline").unwrap().contains(&token);
            let place = if shown { "an argument" } else { "no argument" };
            say(environment, &format!("a token of {}, in {place}", token.len()));
            Ok(0)
        }
        ["escapes"] if is(environment, "0") => Ok(0),
        ["escapes"] => {
            let text = "\u{1b}[2J\u{1b}]0;title\u{7}\rline";
            say(environment, text);
            eprintln!("error {text}");
            Ok(3)
        }
        other => panic!("{other:?}"),
    }
}

/// Waits for SIGTERM or SIGINT, counts how often it comes, and leaves with the code that is given, the later the higher the
/// rank; `never` does not leave, and `twice=CODE` not before the second.
fn trap(environment: &dyn ClusterEnvironment, codes: &[&str]) -> i32 {
    let count = Arc::new(AtomicUsize::new(0));
    let mut signals = Signals::new([SIGTERM, SIGINT]).unwrap();
    let counter = Arc::clone(&count);
    std::thread::spawn(move || signals.forever().for_each(|_| _ = counter.fetch_add(1, Ordering::SeqCst)));
    say(environment, &format!("sleeps as {}", std::process::id()));
    let code = codes.get(environment.global_rank()).copied().unwrap_or("143");
    let (wanted, code) = code.strip_prefix("twice=").map_or((1, code), |code| (2, code));
    while count.load(Ordering::SeqCst) < wanted || code == "never" {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300 * (1 + environment.global_rank() as u64)));
    say(environment, &format!("leaves after {}", count.load(Ordering::SeqCst)));
    code.parse().unwrap()
}

/// Meets the others. `absent N`: rank N leaves before; `late N`: rank N never comes; `again`: another meeting follows;
/// `sleep`: and sleeps.
fn meet(environment: &dyn ClusterEnvironment, words: &[&str]) -> Result<i32, FabricError> {
    match words {
        ["absent", rank, ..] if is(environment, rank) => return Ok(0),
        ["late", rank, ..] if is(environment, rank) => sleep(),
        _ => {}
    }
    let timeout =
        words.iter().find_map(|word| word.strip_prefix("timeout=")).map_or(60.0, |word| word.parse().unwrap());
    let fact = std::env::var(FACT).unwrap_or_default();
    let fact = if fact == "rank" { environment.global_rank().to_string() } else { fact };
    let times = if words.contains(&"again") { 2 } else { 1 };
    for _ in 0..times {
        let store = environments::rendezvous(environment, &[("fact", &fact)], Duration::from_secs_f64(timeout))?;
        let n = store.add("count", 1)?;
        store.set(&format!("number/{n}"), b"")?;
        store.wait(&[&format!("number/{}", environment.world_size())], Duration::from_secs(60))?;
        say(environment, "met the others");
        std::io::stdout().flush().unwrap();
        // A rank that hosts the store leaves last.
        store.add("leaving", 1)?;
        while environment.global_rank() == 0 && store.add("leaving", 0)? < environment.world_size() as i64 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    if words.contains(&"sleep") {
        say(environment, &format!("sleeps as {}", std::process::id()));
        sleep();
    }
    Ok(0)
}
