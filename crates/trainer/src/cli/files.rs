//! [`Files`]: configuration files, and what they include.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use fulgurite_fabric::environments;

use super::check::wrong;
use super::tree::{Content, Node};
use super::yaml;
use fulgurite_engine::Error;

/// Where ranks find files that their launcher read and they cannot read again.
pub(crate) const PASSED: &str = "FULGURITE_PASSED_CONFIG";

/// The maximum size of a file.
const MAX_LENGTH: u64 = 16 << 20;
/// The maximum total length of the texts for ranks: half of what Linux allows for a variable.
const MAX_PASSED: u64 = 60 << 10;
/// The maximum include depth.
const MAX_DEPTH: usize = 64;

/// Configuration files. A file that cannot be read twice, such as the pipe of `--config <(…)`, is read once and kept,
/// for this process and for the ranks that it may start.
pub(super) struct Files {
    kept: RefCell<BTreeMap<String, String>>,
}

/// The result of reading files that include one another.
#[derive(Default)]
struct Found {
    /// In reverse order.
    layers: Vec<Node>,
    seen: HashSet<PathBuf>,
}

impl Files {
    /// Creates it with the texts passed by the launcher of this process.
    pub(super) fn new() -> Files {
        let passed = std::env::var(PASSED).ok().filter(|_| environments::is_supervised());
        let kept = passed.and_then(|passed| serde_json::from_str(&passed).ok()).unwrap_or_default();
        Files { kept: RefCell::new(kept) }
    }

    /// The texts to pass to ranks, if any.
    pub(super) fn passed(&self) -> Option<String> {
        let kept = self.kept.borrow();
        (!kept.is_empty()).then(|| serde_json::json!(*kept).to_string())
    }

    /// A file and the files it includes. Those come before it, so that its own values win; a file that is included several
    /// times counts where it is included last.
    pub(super) fn layers(&self, path: &Path) -> Result<Vec<Node>, Error> {
        let mut found = Found::default();
        self.include(path, &mut Vec::new(), &mut found)?;
        found.layers.reverse();
        Ok(found.layers)
    }

    fn include(&self, path: &Path, chain: &mut Vec<PathBuf>, found: &mut Found) -> Result<(), Error> {
        let shown = path.display().to_string();
        let cannot = |reason: String| Error::Config(format!("the configuration file {shown} cannot be read: {reason}"));
        let passes = is_passing(path);
        let real =
            if passes { path.to_path_buf() } else { path.canonicalize().map_err(|error| cannot(reason(&error)))? };
        if chain.contains(&real) || chain.len() == MAX_DEPTH {
            let is_loop = chain.contains(&real);
            let names =
                chain.iter().chain([&real]).map(|path| path.file_name().unwrap_or_default().display().to_string());
            let names: Vec<String> = names.collect();
            return wrong(match is_loop {
                true => format!(
                    "these configuration files include each other: {}; leave one `include` out",
                    names.join(" -> ")
                ),
                false => {
                    format!("more than {MAX_DEPTH} configuration files include one another in a row, from {}", names[0])
                }
            });
        }
        if !found.seen.insert(real.clone()) {
            return Ok(());
        }
        let text = if passes {
            self.keep(path, &shown)
        } else {
            let too_long = || format!("it has more than {} MiB, which no configuration needs", MAX_LENGTH >> 20);
            read(path, MAX_LENGTH, too_long)
        };
        let mut node = yaml::read(&text.map_err(cannot)?, &shown)?;
        let origin = node.origin.clone();
        let Some(entries) = node.as_map_mut() else {
            return wrong(format!("{origin}: a configuration file is a mapping, such as `trainer:` and its options"));
        };
        let included = entries.shift_remove("include");
        found.layers.push(node);
        chain.push(real);
        let folder = if passes { None } else { path.parent() }.unwrap_or(Path::new(""));
        for file in included.iter().flat_map(named_files).rev() {
            let Some(name) = file.as_str() else {
                return wrong(format!("{}: `include` names files; write one, or a list of them", file.origin));
            };
            self.include(&folder.join(name), chain, found)?;
        }
        chain.pop();
        Ok(())
    }

    /// The text of a file that can be read only once, read now or before.
    fn keep(&self, path: &Path, name: &str) -> Result<String, String> {
        if let Some(text) = self.kept.borrow().get(name) {
            return Ok(text.clone());
        }
        let mut kept = self.kept.borrow_mut();
        let length: usize = kept.values().map(String::len).sum();
        let longest = MAX_PASSED.saturating_sub(length as u64);
        let too_long = || format!("more than {longest} bytes come out of it; save them to a file, which may have more");
        let text = read(path, longest, too_long)?;
        if text.trim().is_empty() && path != Path::new("/dev/null") {
            return Err("nothing came out of it; has another process read it already?".into());
        }
        kept.insert(name.to_owned(), text.clone());
        Ok(text)
    }
}

fn named_files(included: &Node) -> std::slice::Iter<'_, Node> {
    match &included.content {
        Content::List(items) => items.iter(),
        _ => std::slice::from_ref(included).iter(),
    }
}

/// Whether a file can be read only once, or is different for another process: a pipe, or a file descriptor.
fn is_passing(path: &Path) -> bool {
    let is_of_process = ["/dev/fd", "/dev/stdin", "/proc"].iter().any(|place| path.starts_with(place));
    is_of_process || path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// The text of a file of at most `longest` bytes, or why it cannot be read.
fn read(path: &Path, longest: u64, too_long: impl Fn() -> String) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(longest + 1).read_to_end(&mut bytes));
    read.map_err(|error| reason(&error))?;
    if bytes.len() as u64 > longest {
        return Err(too_long());
    }
    String::from_utf8(bytes).map_err(|_| "it is not text in UTF-8".into())
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        _ => error.to_string(),
    }
}
