//! A campaign: runs that are killed until enough kills are counted, and what came of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fulgurite_torch::serialization;

use crate::damage::{Damage, checkpoints, damage};
use crate::draw::Draw;
use crate::life::{Fate, Life, Program, Victims};
use crate::log::Log;
use crate::trainee::{CHECKPOINTS, SAVES, WEIGHTS};

/// After so many deaths a run is left in peace.
const MOST_DEATHS: u64 = 40;

/// How a campaign is led.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The program, once for each way of saving.
    pub programs: Vec<Program>,
    /// How many kills to make at least.
    pub kills: u64,
    /// What chance is made of.
    pub seed: u64,
    /// Runs at a time.
    pub jobs: usize,
    /// In how many of a hundred runs checkpoints are damaged between two processes.
    pub damaged_runs: u64,
    /// Prints how it goes.
    pub is_verbose: bool,
}

/// The run that nobody disturbed.
#[derive(Debug)]
pub struct Undisturbed {
    weights: Vec<u8>,
    log: Log,
    calls: u64,
    time: Duration,
}

impl Undisturbed {
    /// Lets the program train in peace.
    pub fn train(program: &Program) -> Result<Undisturbed> {
        let folder = tempfile::tempdir()?;
        let life = program.live(folder.path(), &Fate::Spared)?;
        if !life.status.success() {
            bail!("the undisturbed run failed: {}", life.complaints);
        }
        let weights = fs::read(folder.path().join(WEIGHTS))?;
        let calls = life.calls().context("the undisturbed run did not say how often it called")?;
        Ok(Undisturbed { weights, log: Log::read(folder.path())?, calls, time: life.time })
    }

    /// How many calls of the file system its checkpoints take.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// How many of them one save takes, on average.
    pub fn calls_of_a_save(&self) -> u64 {
        self.calls / SAVES
    }

    /// How long it took.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Checks what a finished run left.
    pub fn compare(&self, folder: &Path) -> Result<()> {
        if fs::read(folder.join(WEIGHTS))? != self.weights {
            bail!("the weights are not those of the undisturbed run");
        }
        let log = Log::read(folder)?;
        if let Some(cell) = log.wrong(&self.log) {
            bail!("the log has a value that the undisturbed run's has not: {cell:?}");
        }
        if let Some(cell) = log.lost(&self.log) {
            bail!("the log lacks a value: {cell:?}");
        }
        Ok(())
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Runs that came to their end.
    pub runs: u64,
    /// Kills by where they hit.
    pub kills: BTreeMap<&'static str, u64>,
    /// Starts by what they went on from.
    pub starts: BTreeMap<&'static str, u64>,
    /// Damaged files by what was done to them.
    pub damages: BTreeMap<Damage, u64>,
    /// Starts that were refused because of a damaged file, with the reason.
    pub refusals: u64,
    /// What must not be: each with the folder that is left to be looked at.
    pub problems: Vec<String>,
}

impl Tally {
    /// All kills.
    pub fn all_kills(&self) -> u64 {
        self.kills.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, count: u64| writeln!(f, "{name:<44}{count:>8}");
        row("runs that came to their end", self.runs)?;
        row("kills", self.all_kills())?;
        for (place, count) in &self.kills {
            row(&format!("  {place}"), *count)?;
        }
        row("starts", self.starts.values().sum())?;
        for (from, count) in &self.starts {
            row(&format!("  from {from}"), *count)?;
        }
        row("checkpoints damaged", self.damages.values().sum())?;
        for (damage, count) in &self.damages {
            row(&format!("  {damage:?}").to_lowercase(), *count)?;
        }
        row("starts refused for a damaged checkpoint", self.refusals)?;
        row("other weights or log, or no way to go on", self.problems.len() as u64)?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}

impl Campaign {
    /// Leads it.
    pub fn run(&self) -> Result<Tally> {
        if self.programs.is_empty() {
            bail!("there is no program to run");
        }
        let mut undisturbed = BTreeMap::new();
        for program in &self.programs {
            // Ways of saving do not change the weights; another number of ranks does.
            if let Entry::Vacant(place) = undisturbed.entry(program.ranks) {
                place.insert(Undisturbed::train(program)?);
            }
        }
        let tally = Mutex::new(Tally::default());
        let next = AtomicU64::new(0);
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while self.is_short(&tally) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        self.one_run(number, &undisturbed, &tally);
                        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        if self.is_verbose && number % 10 == 9 {
                            let (kills, problems) = (tally.all_kills(), tally.problems.len());
                            println!(
                                "{:>5} s: run {}, {kills} kills, {problems} problems",
                                began.elapsed().as_secs(),
                                number + 1
                            );
                        }
                    }
                });
            }
        });
        Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_short(&self, tally: &Mutex<Tally>) -> bool {
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.all_kills() < self.kills && tally.problems.len() < 20
    }

    /// One run whose processes meet these fates, one after the other, and whose last is spared.
    pub fn endure(program: &Program, undisturbed: &Undisturbed, fates: &[Fate]) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut run = Run::new(folder.path(), program, Draw::new(0, 0), false);
        run.fates = fates.iter().cloned().chain([Fate::Spared]).collect();
        let outcome = run.live_to_the_end(undisturbed, &Mutex::default());
        outcome.with_context(|| run.history.join("; "))
    }

    fn one_run(&self, number: u64, undisturbed: &BTreeMap<usize, Undisturbed>, tally: &Mutex<Tally>) {
        let folder = match tempfile::tempdir() {
            Ok(folder) => folder,
            Err(error) => return note(tally, |tally| tally.problems.push(format!("no folder: {error}"))),
        };
        let mut draw = Draw::new(self.seed, number);
        let Some(program) = draw.choose(&self.programs) else { return };
        let Some(undisturbed) = undisturbed.get(&program.ranks) else { return };
        let is_damaged = draw.percent(self.damaged_runs);
        let mut run = Run::new(folder.path(), program, draw, is_damaged);
        let outcome = run.live_to_the_end(undisturbed, tally);
        note(tally, |tally| match outcome {
            Ok(()) => tally.runs += 1,
            Err(error) => {
                let history = run.history.join("\n    ");
                let kept = folder.keep();
                tally.problems.push(format!("run {number} in {}: {error:#}\n    {history}", kept.display()));
            }
        });
    }
}

fn note(tally: &Mutex<Tally>, change: impl FnOnce(&mut Tally)) {
    change(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
}

/// One run, over all its processes.
struct Run<'a> {
    program: &'a Program,
    folder: &'a Path,
    draw: Draw,
    is_damaged: bool,
    /// What is to happen, where it is not left to chance.
    fates: VecDeque<Fate>,
    /// Files that are not whole, because we damaged them.
    bad: BTreeSet<PathBuf>,
    /// Unfinished files that killed processes left.
    leftovers: BTreeSet<OsString>,
    history: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(folder: &'a Path, program: &'a Program, draw: Draw, is_damaged: bool) -> Run<'a> {
        let (fates, bad, leftovers, history) = Default::default();
        Run { program, folder, draw, is_damaged, fates, bad, leftovers, history }
    }

    fn live_to_the_end(&mut self, undisturbed: &Undisturbed, tally: &Mutex<Tally>) -> Result<()> {
        let mut deaths = 0;
        loop {
            let fate = if deaths < MOST_DEATHS { self.fate(undisturbed) } else { Fate::Spared };
            let life = self.program.live(self.folder, &fate)?;
            self.history.push(format!("{fate:?}: {}, {}", life.status, life.went_on_from().unwrap_or("-")));
            if let Some(from) = life.went_on_from() {
                note(tally, |tally| *tally.starts.entry(kind_of(from)).or_default() += 1);
            }
            if life.was_killed() {
                deaths += 1;
                let place = self.place(&fate, &life)?;
                note(tally, |tally| *tally.kills.entry(place).or_default() += 1);
                self.inspect()?;
                if self.is_damaged && self.draw.percent(40) {
                    self.damage_one(tally)?;
                }
            } else if life.status.success() {
                return undisturbed.compare(self.folder);
            } else if self.bad.is_empty() || !life.complaints.contains("checkpoint") {
                bail!("it cannot go on: {} {}", life.status, life.complaints);
            } else {
                if let Some(whole) =
                    checkpoints(&self.checkpoints())?.iter().find(|path| serialization::load(path).is_ok())
                {
                    bail!("it refuses to go on, and {} is whole: {}", whole.display(), life.complaints);
                }
                // It said why not; its owner clears away what is damaged.
                self.history.push(life.complaints.clone());
                note(tally, |tally| tally.refusals += 1);
                for bad in std::mem::take(&mut self.bad) {
                    fs::remove_file(bad)?;
                }
            }
        }
    }

    /// What happens to the next process.
    fn fate(&mut self, undisturbed: &Undisturbed) -> Fate {
        if let Some(fate) = self.fates.pop_front() {
            return fate;
        }
        if self.draw.percent(40) {
            // Also while it starts, and rarely after its end.
            let time = undisturbed.time.as_micros() as u64;
            let time = Duration::from_micros(self.draw.below(time));
            let ranks = self.program.ranks as u64;
            if ranks == 1 {
                return Fate::KilledAfter(time);
            }
            return match self.draw.below(ranks + 2) {
                0 => Fate::KilledAfter(time),
                1 => Fate::SomeKilledAfter(Victims::All, time),
                rank => Fate::SomeKilledAfter(Victims::Rank(rank as usize - 2), time),
            };
        }
        let call = self.draw.below(undisturbed.calls / 2);
        let how = self.draw.choose(&["kill-before", "kill-within", "kill-after"]).copied().unwrap_or("kill-before");
        Fate::KilledIn(format!("{call}:{how}"))
    }

    /// Where a kill hit.
    fn place(&mut self, fate: &Fate, life: &Life) -> Result<&'static str> {
        let names = fs::read_dir(self.checkpoints()).into_iter().flatten().map(|entry| Ok(entry?.file_name()));
        let hidden = |name: &OsString| name.to_string_lossy().starts_with('.');
        let leftovers = names.filter(|name| name.as_ref().map_or(true, hidden)).collect::<Result<BTreeSet<_>>>()?;
        let in_write = !leftovers.is_subset(&self.leftovers);
        self.leftovers = leftovers;
        Ok(match fate {
            Fate::KilledIn(fault) if fault.ends_with("before") => "in a save, before a call",
            Fate::KilledIn(fault) if fault.ends_with("within") => "in a save, after half of a write",
            Fate::KilledIn(_) => "in a save, after a call",
            Fate::SomeKilledAfter(Victims::All, _) => "at any time: the supervisor and all ranks",
            Fate::SomeKilledAfter(Victims::Rank(0), _) => "at any time: rank 0 of several",
            Fate::SomeKilledAfter(Victims::Rank(_), _) => "at any time: another rank of several",
            Fate::KilledAfter(_) if self.program.ranks > 1 => "at any time: the supervisor",
            _ if life.went_on_from().is_none() => "at any time: start-up",
            _ if in_write => "at any time: in a save",
            _ => "at any time: training",
        })
    }

    fn checkpoints(&self) -> PathBuf {
        self.folder.join(CHECKPOINTS)
    }

    /// Every checkpoint is whole, unless it was damaged, and no name leads nowhere.
    fn inspect(&mut self) -> Result<()> {
        let Ok(entries) = fs::read_dir(self.checkpoints()) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            if fs::symlink_metadata(&path)?.is_symlink() && !path.exists() {
                bail!("{} leads nowhere", path.display());
            }
        }
        for path in checkpoints(&self.checkpoints())? {
            match serialization::load(&path) {
                Ok(_) => drop(self.bad.remove(&path)),
                Err(_) if self.bad.contains(&path) => {}
                Err(error) => bail!("{} is not whole: {error}", path.display()),
            }
        }
        Ok(())
    }

    fn damage_one(&mut self, tally: &Mutex<Tally>) -> Result<()> {
        let files = checkpoints(&self.checkpoints())?;
        let Some(path) = self.draw.choose(&files) else { return Ok(()) };
        let done = damage(path, &mut self.draw)?;
        self.history.push(format!("{done:?} in {}", path.display()));
        note(tally, |tally| *tally.damages.entry(done).or_default() += 1);
        // Second names share what happened to it.
        for file in files {
            if serialization::load(&file).is_err() {
                self.bad.insert(file);
            }
        }
        Ok(())
    }
}

fn kind_of(from: &str) -> &'static str {
    match from {
        "scratch" => "scratch",
        name if name.starts_with("last") => "last.ckpt",
        _ => "another checkpoint",
    }
}
