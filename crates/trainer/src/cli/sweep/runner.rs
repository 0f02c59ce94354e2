//! [`Sweep`]: asks for trials, runs them, and tells the study what came of them.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fulgurite_engine::{Console, Error, Signal};
use fulgurite_fabric::signals::Inherited;
use fulgurite_search::{Pruner, Sampler, SearchSpace, Study, Trial, TrialState};
use serde_json::{Map, Value};
use signal_hook::flag;

use super::board::{self, Board};
use super::child::Child;
use super::events::{self, Event};
use super::history;
use super::options::{SweepOptions, refused};
use super::owner::{self, Owner};

/// How often trials are looked at: what a trial costs beside its process is half of it, and some lines in the journal.
const INTERVAL: Duration = Duration::from_millis(5);
/// How many trials in a row may fail: what is wrong is then probably none of their parameters.
const FAILURES: usize = 10;

/// A study that is to be gone on with.
pub(in crate::cli) struct Sweep {
    pub options: SweepOptions,
    pub space: SearchSpace,
    /// The name of the study.
    pub study: String,
    /// Where trials have their folders.
    pub folder: PathBuf,
    /// The journal.
    pub storage: PathBuf,
    /// The configuration that all trials have in common.
    pub base: PathBuf,
    /// The program to start.
    pub program: PathBuf,
    /// The CUDA devices of this process, as `CUDA_VISIBLE_DEVICES` names them.
    pub devices: Vec<String>,
    /// How many of them each trial has for itself.
    pub devices_per_trial: usize,
    /// How long a trial may take to end after it was asked to.
    pub grace: Duration,
}

/// How a sweep ended.
pub(in crate::cli) struct SweepEnd {
    pub study: Study,
    /// The signal that ended it, if one did.
    pub signal: Option<Signal>,
    /// The drawn history of the study.
    pub history: Option<PathBuf>,
    /// The same for a terminal.
    pub curve: Option<String>,
}

/// A trial that runs.
struct Running {
    /// The trial's id.
    id: usize,
    child: Child,
    /// Which of the trials that run at once it is.
    slot: usize,
    /// The last value, and whether anything else was reported.
    value: Option<f64>,
    names: Vec<String>,
    /// The best checkpoint that it has written, or the one that it names at its end.
    checkpoint: Option<String>,
    /// Why it was asked to end.
    ending: Option<Ending>,
}

enum Ending {
    Pruned,
    Failed(String),
    /// By the end of the sweep, with which the trial has nothing to do.
    Interrupted(String),
}

/// Notes of a trial have it under this name if it was interrupted: it does not count, and is tried again.
const INTERRUPTED: &str = "interrupted";

/// What is needed between the trials.
struct Search<'a> {
    sweep: &'a Sweep,
    study: Study,
    sampler: Box<dyn Sampler>,
    pruner: Pruner,
    board: Board,
    running: Vec<Running>,
    /// Whether the sampler has nothing left.
    exhausted: bool,
    /// How many trials have failed in a row.
    failures: usize,
}

impl Sweep {
    /// Runs trials until the study has as many as it shall have.
    ///
    /// # Errors
    ///
    /// Fails if the journal cannot be used, or a trial cannot be started.
    pub(in crate::cli) fn run(&self, console: &Console) -> Result<SweepEnd, Error> {
        let options = &self.options;
        let most = options.most_trials(&self.space)?;
        let mut study = Study::open(&self.storage, &self.study, options.direction()).map_err(refused)?;
        study.set_metric_name(&options.monitor).map_err(refused)?;
        let board = Board::new(console, &options.monitor);
        let signals = Signals::listen();
        release_left_ones(&mut study, &board)?;
        if study.trials().next().is_some() {
            let had = ended(&study);
            board.say(&format!("the study `{}` goes on with {had} of {most} trials", self.study));
        }
        let mut search = Search {
            sweep: self,
            study,
            sampler: options.sampler(&self.space)?,
            pruner: options.pruner()?,
            board,
            running: Vec::new(),
            exhausted: false,
            failures: 0,
        };
        let signal = search.run(most, &signals)?;
        search.board.close(&search.study);
        let Search { study, .. } = search;
        let path = self.folder.join("history.svg");
        let drawn = history::svg(&study, &options.monitor, &path).unwrap_or_else(|error| {
            console.warn(&format!("{} cannot be written: {error}", path.display()));
            false
        });
        let curve = history::terminal(&study, &options.monitor).filter(|_| console.is_terminal());
        Ok(SweepEnd { study, signal, history: drawn.then_some(path), curve })
    }
}

impl Search<'_> {
    fn run(&mut self, most: usize, signals: &Signals) -> Result<Option<Signal>, Error> {
        let began = Instant::now();
        let timeout = self.sweep.options.timeout();
        loop {
            if let Some(signal) = signals.came() {
                self.board
                    .say(&format!("{signal}: the trials that run are ended; the same command goes on with the study"));
                self.end_all(&format!("{signal} ended the sweep"))?;
                return Ok(Some(signal));
            }
            let in_time = timeout.is_none_or(|timeout| began.elapsed() < timeout);
            while in_time && self.wants_another(most)? {
                self.begin()?;
            }
            if self.running.is_empty() {
                return Ok(None);
            }
            sleep(INTERVAL);
            self.look_at_all()?;
        }
    }

    /// Whether another trial is to begin. Other processes may run trials of the study too.
    fn wants_another(&mut self, most: usize) -> Result<bool, Error> {
        if self.exhausted || self.running.len() >= self.sweep.options.n_jobs {
            return Ok(false);
        }
        if self.failures >= FAILURES {
            self.exhausted = true;
            self.board.say(&format!("{FAILURES} trials in a row have failed, so no other begins"));
            return Ok(false);
        }
        self.study.sync().map_err(refused)?;
        Ok(ended(&self.study) + self.running.len() < most)
    }

    fn begin(&mut self) -> Result<(), Error> {
        let Some(id) = self.study.ask(self.sampler.as_mut(), &self.sweep.space).map_err(refused)? else {
            self.exhausted = true;
            return Ok(());
        };
        let number = self.study.trial(id).map_or(id, |trial| trial.number);
        let folder = self.sweep.folder.join(format!("trial_{number}"));
        let mut arguments = vec!["fit".to_owned(), "--config".to_owned(), self.sweep.base.display().to_string()];
        arguments
            .extend(self.study.params(id).iter().map(|(name, value)| format!("--{name}={}", argument_value(value))));
        arguments.extend(["--trainer.default_root_dir".to_owned(), folder.display().to_string()]);
        let program = self.sweep.program.display().to_string();
        let command: Vec<String> = [&program].into_iter().chain(&arguments).map(|part| quoted(part)).collect();
        // First the owner: if it is killed, whoever goes on with the study finds the trial.
        let notes: [(&str, Value); 3] = [
            (owner::KEY, Owner::this().map_or(Value::Null, |owner| owner.to_json())),
            ("run_dir", folder.display().to_string().into()),
            ("command", command.join(" ").into()),
        ];
        self.study.set_user_attrs(id, notes.map(|(key, value)| (key.to_owned(), value)).into()).map_err(refused)?;
        let slot = (0..).find(|slot| self.running.iter().all(|running| running.slot != *slot)).unwrap_or(0);
        let shares = [("CUDA_VISIBLE_DEVICES", self.sweep.devices_of(slot)), ("OMP_NUM_THREADS", self.sweep.threads())];
        let shares = shares.into_iter().filter_map(|(name, share)| Some((name, share?)));
        let started = Child::start(&self.sweep.program, &arguments, folder.clone(), shares, self.sweep.grace);
        let child = started.map_err(|error| {
            // Whoever goes on with the study does not wait for it.
            _ = self.study.tell(id, TrialState::Fail, None);
            Error::Config(format!("the trial in {} cannot be started: {error}", folder.display()))
        })?;
        let pid = child.pid();
        self.running.push(Running { id, child, slot, value: None, names: Vec::new(), checkpoint: None, ending: None });
        self.study.set_user_attr(id, "pid", pid).map_err(refused)?;
        self.board.draw(&self.study);
        Ok(())
    }

    /// Reads what trials have reported, and ends those that have ended.
    fn look_at_all(&mut self) -> Result<(), Error> {
        let mut at = 0;
        while at < self.running.len() {
            // A process that has ended reports nothing after this.
            let status = self.running[at].child.poll().map_err(|error| Error::Config(error.to_string()))?;
            let heard = self.hear(at)?;
            match status {
                Some(status) => {
                    while self.hear(at)? {}
                    let running = self.running.swap_remove(at);
                    self.conclude(running, status)?;
                    self.board.draw(&self.study);
                }
                None => {
                    at += 1;
                    if heard {
                        self.board.draw(&self.study);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a trial has reported anything. What comes after it was asked to end does not count.
    fn hear(&mut self, at: usize) -> Result<bool, Error> {
        let running = &mut self.running[at];
        let events = running.child.events();
        let heard = !events.is_empty();
        for event in events {
            if running.ending.is_some() {
                break;
            }
            match event {
                Event::Start { log_dir } => {
                    let log_dir = log_dir.map_or(Value::Null, Value::from);
                    self.study.set_user_attr(running.id, "log_dir", log_dir).map_err(refused)?;
                }
                Event::Metrics { epoch, values } => {
                    running.note(&values, &self.sweep.options.monitor);
                    let Some(value) = running.value.filter(|_| values.contains_key(&self.sweep.options.monitor)) else {
                        continue;
                    };
                    self.study.report(running.id, epoch, value).map_err(refused)?;
                    let prune = self.study.should_prune(running.id, &mut self.pruner).map_err(refused)?;
                    if prune {
                        running.end(Ending::Pruned);
                    }
                }
                Event::Checkpoint { path, is_best: true } => running.checkpoint = Some(path),
                Event::Checkpoint { .. } => {}
                Event::End { values, ckpt } => {
                    running.note(&values, &self.sweep.options.monitor);
                    running.checkpoint = ckpt.or(running.checkpoint.take());
                }
                Event::Garbage(problem) => running.end(Ending::Failed(problem)),
            }
        }
        if let Some(timeout) = self.sweep.options.trial_timeout().filter(|timeout| running.child.age() > *timeout) {
            running.end(Ending::Failed(format!("it took longer than {} s", timeout.as_secs_f64())));
        }
        Ok(heard)
    }

    /// Tells the study how a trial has ended.
    fn conclude(&mut self, running: Running, status: ExitStatus) -> Result<(), Error> {
        let Running { id, child, value, names, checkpoint, ending, .. } = running;
        let monitor = &self.sweep.options.monitor;
        let is_interrupted = matches!(ending, Some(Ending::Interrupted(_)));
        let outcome = match (ending, value) {
            (Some(Ending::Failed(problem) | Ending::Interrupted(problem)), _) => Err(problem),
            (Some(Ending::Pruned), value) => Ok((TrialState::Pruned, value)),
            (None, _) if !status.success() => Err(match child.last_words() {
                Some(words) => format!("{status}: {words}; see {}", child.folder().display()),
                None => format!("{status}; see {}", child.folder().display()),
            }),
            (None, Some(value)) if value.is_nan() => Err(format!("its `{monitor}` is NaN")),
            (None, Some(value)) => Ok((TrialState::Complete, Some(value))),
            (None, None) if names.is_empty() => {
                Err(format!("it has reported nothing; see {}", child.folder().display()))
            }
            (None, None) => Err(format!("it has logged no `{monitor}`, but {}", names.join(", "))),
        };
        let (state, value) = outcome.as_ref().map_or((TrialState::Fail, None), |outcome| *outcome);
        let notes = [("ckpt", checkpoint.as_deref()), ("fail_reason", outcome.as_ref().err().map(String::as_str))];
        let notes = notes.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
        let notes: Vec<(String, Value)> = notes.collect();
        if is_interrupted {
            interrupt(&mut self.study, id, notes)?;
        } else {
            self.study.set_user_attrs(id, notes).map_err(refused)?;
            self.study.tell(id, state, value.filter(|value| !value.is_nan())).map_err(refused)?;
        }
        self.failures = if outcome.is_ok() { 0 } else { self.failures + 1 };
        if let Some(trial) = self.study.trial(id) {
            self.board.ended(trial, outcome.err().as_deref());
        }
        Ok(())
    }

    /// Ends all that run; they have failed for this reason.
    fn end_all(&mut self, reason: &str) -> Result<(), Error> {
        self.running.iter_mut().for_each(|running| running.end(Ending::Interrupted(reason.to_owned())));
        while !self.running.is_empty() {
            sleep(INTERVAL);
            self.look_at_all()?;
        }
        Ok(())
    }
}

impl Running {
    /// Notes the monitored value, and which others there are.
    fn note(&mut self, values: &Map<String, Value>, monitor: &str) {
        self.value = values.get(monitor).and_then(events::number).or(self.value);
        self.names = values.keys().cloned().collect();
    }

    /// The first reason counts.
    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        self.child.terminate();
    }
}

impl Sweep {
    /// The devices of one of the trials that run at once. More trials than devices share them.
    fn devices_of(&self, slot: usize) -> Option<String> {
        let each = self.devices_per_trial.min(self.devices.len());
        if each == 0 {
            return None;
        }
        let slots = self.devices.len() / each;
        Some(self.devices[slot % slots * each..][..each].join(","))
    }

    /// The processors of each process, if several share them and nobody has said it otherwise.
    fn threads(&self) -> Option<String> {
        let processes = self.options.n_jobs.saturating_mul(self.devices_per_trial);
        if processes < 2 || std::env::var_os("OMP_NUM_THREADS").is_some() {
            return None;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Some((processors / processes).max(1).to_string())
    }
}

/// How many trials have ended by themselves.
fn ended(study: &Study) -> usize {
    let counts = |trial: &&Trial| trial.state.is_finished() && !trial.user_attrs.contains_key(INTERRUPTED);
    study.trials().filter(counts).count()
}

/// A trial fails for a reason that lies not in its parameters, so these are tried again.
fn interrupt(study: &mut Study, id: usize, mut notes: Vec<(String, Value)>) -> Result<(), Error> {
    notes.push((INTERRUPTED.to_owned(), true.into()));
    study.set_user_attrs(id, notes).map_err(refused)?;
    study.tell(id, TrialState::Fail, None).map_err(refused)?;
    study.retry(id).map_err(refused)
}

/// Trials whose sweep was killed will never end.
fn release_left_ones(study: &mut Study, board: &Board) -> Result<(), Error> {
    let left: Vec<(usize, usize)> = study
        .trials()
        .filter(|trial| trial.state == TrialState::Running)
        .filter(|trial| {
            trial.user_attrs.get(owner::KEY).and_then(Owner::from_json).is_some_and(|owner| owner.is_gone())
        })
        .map(|trial| (trial.id, trial.number))
        .collect();
    for (id, number) in left {
        interrupt(study, id, vec![("fail_reason".to_owned(), "its sweep was killed".into())])?;
        board.say(&format!("trial {number} failed: its sweep was killed; its parameters are tried again"));
    }
    Ok(())
}

/// The text of a value on a command line.
pub(in crate::cli) fn argument_value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What a sweep prints of its best trial.
pub(in crate::cli) fn summary(study: &Study, best: &Trial, monitor: &str) -> String {
    let value = board::number(best.value.unwrap_or(f64::NAN));
    let all = study.trials().count();
    format!("best: trial {} of {all}, {monitor} {value}; {}", best.number, board::parameters(best))
}

/// Signals that end the sweep; a second one ends it at once.
struct Signals([(Signal, Arc<AtomicBool>); 3]);

impl Signals {
    fn listen() -> Signals {
        let inherited = Inherited::read();
        Signals([Signal::Interrupt, Signal::Terminate, Signal::Hangup].map(|signal| {
            let came = Arc::new(AtomicBool::new(false));
            if !inherited.ignores(signal) {
                // Where the system refuses, a signal keeps its usual meaning.
                _ = flag::register_conditional_shutdown(signal.number(), signal.exit_status(), Arc::clone(&came));
                _ = flag::register(signal.number(), Arc::clone(&came));
            }
            (signal, came)
        }))
    }

    fn came(&self) -> Option<Signal> {
        self.0.iter().find(|(_, came)| came.load(Ordering::Relaxed)).map(|(signal, _)| *signal)
    }
}
