//! Which existing files a resumed run takes over. Paths in a checkpoint are untrusted: a file is overwritten or removed
//! only if its own content shows that the run wrote it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use fulgurite_engine::config::Maximum;
use fulgurite_engine::{Error, Outline, Reach, TrainerState};
use fulgurite_torch::Value;

use super::ledger::Kept;
use super::naming::Template;
use super::paths::{absolute, lies_in};
use super::state::{path_of, score_of};
use super::{Ledger, ModelCheckpoint};

/// File names for a message.
const SHOWN: usize = 5;

/// A checkpoint that the run wrote after the one it was resumed from.
struct Later {
    path: PathBuf,
    place: LaterPlace,
    reach: Reach,
}

#[derive(Clone, Copy, PartialEq)]
enum LaterPlace {
    Ranked,
    Latest,
    Last,
}

impl ModelCheckpoint {
    /// Drops kept checkpoints that no longer exist (removed by the run before it was killed, or by someone else) or
    /// belong to another run, and adds those that the run wrote later.
    pub(super) fn take_over(&mut self, trainer: &mut TrainerState) -> Result<(), Error> {
        let mut kept = self.kept().clone();
        let models = kept.top.models.iter().map(|(path, _)| path);
        let named: HashSet<PathBuf> =
            models.chain(&kept.best_model_path).chain(&kept.last_model_path).cloned().collect();
        let mut named: Vec<PathBuf> = named.into_iter().collect();
        // Collective calls: every rank makes them in the same order.
        named.sort();
        let mut lost = HashSet::new();
        for path in named {
            if !self.may_keep(trainer, &path)? {
                lost.insert(path);
            }
        }
        kept.top.retain(|path| !lost.contains(path));
        kept.last_model_path = kept.last_model_path.filter(|path| !lost.contains(path));
        if kept.best_model_path.as_ref().is_some_and(|path| lost.contains(path)) {
            kept.note_best_of_ranking();
        }
        let overdue = self.take_in_later(trainer, &mut kept)?;
        self.ledger = Ledger::from(kept);
        self.ledger.overdue = overdue;
        Ok(())
    }

    /// Whether a file named in the state exists and belongs to the run.
    fn may_keep(&self, trainer: &mut TrainerState, path: &Path) -> Result<bool, Error> {
        let Some(loaded) = &self.loaded else { return Ok(trainer.checkpoint_io().exists(path)?) };
        if !trainer.broadcast_decision(self.lies_here(path))? {
            // The best of a run in another folder can be loaded, and is never removed.
            let is_beside = loaded.path.parent().is_some_and(|folder| lies_in(path, folder));
            return Ok(trainer.broadcast_decision(is_beside)? && trainer.checkpoint_io().exists(path)?);
        }
        if !trainer.checkpoint_io().exists(path)? {
            return Ok(false);
        }
        let Ok(Value::Dict(checkpoint)) = trainer.checkpoint_io().outline(path) else { return Ok(false) };
        let outline = Outline(&checkpoint);
        let is_of_run = match (outline.run_id(), &loaded.run_id) {
            (Some(theirs), Some(ours)) => theirs == ours,
            // A weights-only file, or one written by Lightning.
            (None, _) => {
                let is_named = self.may_have_named(path) || absolute(path) == absolute(&loaded.path);
                trainer.broadcast_decision(self.lies_here(&loaded.path))? && is_named
            }
            (Some(_), None) => false,
        };
        Ok(outline.is_checkpoint() && is_of_run)
    }

    /// Adds the files that the run wrote after the checkpoint it was resumed from, which does not list them; new files
    /// replace them. Returns the files that exceed `save_top_k`.
    fn take_in_later(&mut self, trainer: &mut TrainerState, kept: &mut Kept) -> Result<Vec<PathBuf>, Error> {
        self.written_later.clear();
        let mut overdue = Vec::new();
        let written_later = self.written_later(trainer, kept)?;
        self.warn_about_later(trainer, &written_later);
        for Later { path, place, reach } in written_later {
            self.written_later.insert(path.clone(), reach.position.0);
            match place {
                LaterPlace::Ranked => match self.score_in(trainer, &path)? {
                    Some(score) => drop(kept.top.insert(&path, score)),
                    None => drop(self.written_later.remove(&path)),
                },
                LaterPlace::Last if kept.last_model_path.is_none() => kept.last_model_path = Some(path),
                LaterPlace::Latest if kept.best_model_path.is_none() => kept.best_model_path = Some(path),
                LaterPlace::Latest if self.options.save_top_k != Maximum::Of(1) => {}
                // First, because it may be a link to one of the others.
                LaterPlace::Last => overdue.insert(0, path),
                LaterPlace::Latest => overdue.push(path),
            }
        }
        // In another folder the ranking starts anew; the best checkpoint of the earlier run stays available.
        if self.options.monitor.is_some() && kept.top.best().is_some() {
            kept.note_best_of_ranking();
        }
        Ok(overdue)
    }

    /// Warns that later checkpoints are replaced, which may be unexpected.
    fn warn_about_later(&self, trainer: &TrainerState, written_later: &[Later]) {
        let Some(loaded) = &self.loaded else { return };
        let further = written_later.iter().filter(|later| later.reach.position > loaded.reach.position);
        let names: Vec<_> = further.filter_map(|later| later.path.file_name()).map(|name| name.display()).collect();
        let shown = names.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let others = match names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        if !names.is_empty() {
            trainer.warn(&format!(
                "the run goes back to {}, and what it wrote after that is replaced as it continues: {shown}{others}; give \
                 another dirpath to keep them",
                loaded.path.display()
            ));
        }
    }

    /// The one with the most progress first.
    fn written_later(&self, trainer: &mut TrainerState, kept: &Kept) -> Result<Vec<Later>, Error> {
        let (Some(folder), Some(loaded)) = (&self.dirpath, &self.loaded) else { return Ok(Vec::new()) };
        let Some(run_id) = loaded.run_id.as_deref().filter(|id| trainer.run_id() == Some(id)) else {
            return Ok(Vec::new());
        };
        let mut files = trainer.checkpoint_io().list_below(folder, self.depth_of_names())?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut later = Vec::new();
        for path in files.into_iter().map(|file| file.path) {
            if !self.has_extension(&path) || kept.mentions(&path) || absolute(&path) == absolute(&loaded.path) {
                continue;
            }
            let Ok(Value::Dict(checkpoint)) = trainer.checkpoint_io().outline(&path) else { continue };
            let outline = Outline(&checkpoint);
            let is_later = outline.run_id() == Some(run_id) && outline.reach().position >= loaded.reach.position;
            if let Some(place) = self.place_in(outline, &path).filter(|_| is_later) {
                later.push(Later { path, place, reach: outline.reach() });
            }
        }
        later.sort_by_key(|file| std::cmp::Reverse(file.reach));
        Ok(later)
    }

    /// How this callback classified a file when it wrote it: every checkpoint holds the state that names it.
    fn place_in(&self, outline: Outline<'_>, path: &Path) -> Option<LaterPlace> {
        let state = outline.callback(&self.lightning_state_key())?;
        let names = |key: &str| path_of(state.get(key)).as_deref() == Some(path);
        if path_of(state.get("dirpath")) != self.dirpath {
            return None;
        }
        if names("last_model_path") {
            return Some(LaterPlace::Last);
        }
        match self.options.monitor {
            None => names("best_model_path").then_some(LaterPlace::Latest),
            Some(_) => {
                let ranking = state.dict("best_k_models").ok()?;
                ranking.keys().any(|model| Path::new(model) == path).then_some(LaterPlace::Ranked)
            }
        }
    }

    /// The monitored value that a file was kept under, as rank zero reads it.
    fn score_in(&self, trainer: &mut TrainerState, path: &Path) -> Result<Option<f64>, Error> {
        let mut found = None;
        if trainer.is_global_zero()
            && let Ok(Value::Dict(checkpoint)) = trainer.checkpoint_io().load(path)
            && let Some(state) = Outline(&checkpoint).callback(&self.lightning_state_key())
            && let Ok(ranking) = state.dict("best_k_models")
        {
            let of_path = ranking.iter().find(|(model, _)| path_of(Some(model)).as_deref() == Some(path));
            found = of_path.and_then(|(_, score)| score_of(Some(score)).ok().flatten());
        }
        let score = trainer.broadcast_number(found.unwrap_or(f64::NAN))?;
        Ok((!score.is_nan()).then_some(score))
    }

    fn lies_here(&self, path: &Path) -> bool {
        self.dirpath.as_deref().is_some_and(|folder| lies_in(path, folder))
    }

    pub(super) fn has_extension(&self, path: &Path) -> bool {
        path.to_str().is_some_and(|path| path.ends_with(&self.options.file_extension))
    }

    /// The number of folder levels in the names that the templates generate.
    pub(super) fn depth_of_names(&self) -> usize {
        let of = |template: &str| template.matches('/').count();
        of(&self.options.filename).max(of(&self.options.checkpoint_name_last))
    }

    /// Whether a file name matches one of the templates.
    fn may_have_named(&self, path: &Path) -> bool {
        let Some(name) = self.name_in_folder(path) else { return false };
        let templates = [self.filename_template(), self.options.checkpoint_name_last.clone()];
        templates.iter().filter_map(|text| Template::parse(text).ok()).any(|template| {
            template.may_have_made(&name) || self.unversioned(&name).is_some_and(|name| template.may_have_made(name))
        })
    }

    /// A file's name below the folder, without extension.
    pub(super) fn name_in_folder(&self, path: &Path) -> Option<String> {
        let name = path.strip_prefix(self.dirpath.as_deref()?).ok()?.to_str()?;
        name.strip_suffix(&self.options.file_extension).map(str::to_owned)
    }

    /// A name without the version suffix that avoids collisions.
    pub(super) fn unversioned<'n>(&self, name: &'n str) -> Option<&'n str> {
        let (name, version) = name.rsplit_once(&format!("{}v", self.options.checkpoint_join_char))?;
        version.parse::<u64>().is_ok().then_some(name)
    }
}
