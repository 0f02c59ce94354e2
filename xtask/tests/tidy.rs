//! What must stay true of every file, and no compiler checks.

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/guide.rs"]
mod guide;
#[path = "tidy/packages.rs"]
mod packages;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the workspace.
struct File {
    /// Its path in the workspace, with slashes.
    path: String,
    text: String,
}

impl File {
    fn has_extension(&self, extensions: &[&str]) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
    }

    /// Its lines, each with its place, without those that are comments.
    fn code(&self) -> impl Iterator<Item = (String, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn lines(&self) -> impl Iterator<Item = (String, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (format!("{}:{}", self.path, index + 1), line))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

const CODE: &[&str] = &["rs", "cpp", "h", "py"];

/// Every text file of the workspace but what is fetched, built or written by runs.
fn files() -> Vec<File> {
    fn walk(folder: &Path, prefix: &str, files: &mut Vec<File>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{prefix}{name}");
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                let generated = ["target", "lightning_logs", "checkpoints", "__pycache__"].contains(&name.as_str());
                if !generated && (!name.starts_with('.') || [".ci", ".github"].contains(&name.as_str())) {
                    walk(&entry.path(), &format!("{path}/"), files);
                }
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                files.push(File { path, text });
            }
        }
    }
    let mut files = Vec::new();
    walk(&root(), "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.iter().any(|file| file.path == "Cargo.toml"), "this is not the workspace");
    files
}

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

fn contains_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|other| other == word)
}

#[test]
fn only_the_torch_crate_contains_unsafe_code_and_cpp() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| !file.path.starts_with("crates/torch/")) {
        if file.has_extension(&["cpp", "cc", "h", "hpp"]) {
            found.push(file.path.clone());
        }
        if file.has_extension(&["rs"]) {
            let lifted = [concat!("allow(un", "safe_code"), concat!("expect(un", "safe_code")];
            let is_unsafe = |line: &str| {
                contains_word(line, concat!("un", "safe")) || lifted.iter().any(|attribute| line.contains(attribute))
            };
            found.extend(file.code().filter(|(_, line)| is_unsafe(line)).map(|(place, _)| place));
        }
    }
    none("move it into crates/torch, behind a safe function", found);
}

#[test]
fn libraries_print_through_their_reporters_alone_and_these_escape() {
    const REPORTERS: [&str; 6] = [
        "crates/cli/src/console.rs",
        "crates/fabric/src/fabric/own_loop.rs",
        "crates/fabric/src/launcher/relay.rs",
        "crates/torch/src/panic_hook.rs",
        "crates/torch/src/startup.rs",
        "crates/engine/src/console.rs",
    ];
    const WAYS_OUT: [&str; 11] = [
        "print!(",
        "println!(",
        "dbg!(",
        "stdout()",
        "stderr()",
        "Term::buffered_",
        "/dev/tty",
        "/dev/stderr",
        "std::cout",
        "std::cerr",
        "printf(",
    ];
    // They ask what the terminal is, and write nothing.
    const QUESTIONS: [&str; 7] = [
        "stdout().is_terminal()",
        "stderr().is_terminal()",
        "stdout().size_checked()",
        "Term::stderr().size",
        "error.use_stderr()",
        "Console::stderr()",
        "colors_enabled_stderr()",
    ];
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.path.starts_with("crates/") && file.path.contains("/src/")) {
        let is_reporter = REPORTERS.contains(&file.path.as_str());
        if is_reporter && !file.text.contains("printable(") {
            found.push(format!("{}: a reporter that does not escape", file.path));
        }
        if !is_reporter && file.has_extension(&["rs", "cpp", "h"]) {
            let prints = |line: &str| {
                let rest = QUESTIONS.iter().fold(line.to_owned(), |rest, question| rest.replace(question, ""));
                WAYS_OUT.iter().any(|way| rest.contains(way))
            };
            found.extend(file.code().filter(|(_, line)| prints(line)).map(|(place, _)| place));
        }
    }
    none("libraries print through their reporters, which escape what a terminal would obey", found);
}

#[test]
fn nothing_is_left_open() {
    let open = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        // With a reason it is not open.
        concat!("#[ig", "nore]"),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
    ];
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.has_extension(CODE)) {
        let is_open = |line: &str| open.iter().any(|open| line.contains(open));
        found.extend(file.lines().filter(|(_, line)| is_open(line)).map(|(place, _)| place));
    }
    none("finish it, or open an issue", found);
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let files = files();
    let lengths = files.iter().filter(|file| file.has_extension(CODE)).map(|file| (file, file.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > 600).map(|(file, lines)| format!("{}: {lines} lines", file.path));
    none("find the seam", long.collect());
}

#[test]
fn every_crate_begins_with_what_it_is() {
    let files = files();
    let roots = files.iter().filter(|file| file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs"));
    let silent = roots.filter(|file| !file.text.starts_with("//! ")).map(|file| file.path.clone());
    none("begin it with a `//!` line", silent.collect());
}

#[test]
fn dependencies_point_up_the_map() {
    let allowed: &[(&str, &[&str])] = &[
        ("torch", &[]),
        ("macros", &[]),
        ("report", &[]),
        ("trackers", &[]),
        ("cli", &["report", "trackers"]),
        ("search", &[]),
        ("nn", &["torch"]),
        ("optim", &["torch"]),
        ("data", &["torch", "macros"]),
        ("metrics", &["torch"]),
        ("fabric", &["torch", "trackers", "optim", "data", "metrics"]),
        ("engine", &["torch", "macros", "optim", "data", "metrics", "fabric"]),
        ("callbacks", &["torch", "optim", "metrics", "fabric", "engine"]),
        ("trainer", &["torch", "macros", "search", "nn", "optim", "data", "metrics", "fabric", "engine", "callbacks"]),
    ];
    let folders: BTreeSet<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(folders, allowed.iter().map(|(folder, _)| folder.to_string()).collect(), "a crate is not on the map");

    let mut found = Vec::new();
    for (folder, allowed) in allowed {
        let path = format!("crates/{folder}/Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(root().join(&path)).unwrap().parse().unwrap();
        for kind in ["dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(kind).and_then(toml::Value::as_table) else { continue };
            for name in dependencies.keys().filter(|name| name.starts_with("fulgurite")) {
                let up = name.strip_prefix("fulgurite-").is_some_and(|other| allowed.contains(&other));
                if !up {
                    found.push(format!("{path}: {name}"));
                }
            }
        }
    }
    none("this dependency points down", found);
}

#[test]
fn no_line_ends_in_a_space_or_holds_a_tab() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.has_extension(&["rs", "cpp", "h", "py", "toml", "md"])) {
        let untidy = |line: &str| line.ends_with([' ', '\t']) || line.contains('\t');
        found.extend(file.lines().filter(|(_, line)| untidy(line)).map(|(place, _)| place));
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            found.push(format!("{}: the last line does not end", file.path));
        }
    }
    none("spaces and tabs", found);
}

#[test]
fn no_link_of_a_page_is_dead() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.has_extension(&["md"])) {
        let folder = root().join(&file.path).parent().unwrap().to_owned();
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next()) {
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !folder.join(target).exists() {
                found.push(format!("{}: {target}", file.path));
            }
        }
    }
    none("these links lead nowhere", found);
}

/// The words of the README that follow `before`.
#[test]
fn every_page_of_the_guide_is_in_its_contents_and_its_programs_are_tests() {
    let files = files();
    let text = |path: &str| files.iter().find(|file| file.path == path).unwrap().text.as_str();
    let (contents, tested) = (text("docs/src/SUMMARY.md"), text("crates/trainer/src/guide.rs"));
    let pages = files.iter().filter_map(|file| Some((file.path.strip_prefix("docs/src/")?, &file.text)));
    let pages: Vec<_> = pages.filter(|(name, _)| *name != "SUMMARY.md").collect();
    assert!(pages.len() > 10, "{pages:?}");
    let missing = pages.iter().filter(|(name, text)| {
        !contents.contains(&format!("]({name})"))
            || text.contains("```rust") && !tested.contains(&format!("\"{name}\""))
    });
    let missing = missing.map(|(name, _)| (*name).to_owned()).collect();
    none("pages of docs/src are not in SUMMARY.md, or their programs not in guide.rs", missing);
}

fn readme_words_after(before: &str) -> BTreeSet<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let words = readme.split(before).skip(1).filter_map(|rest| rest.split(|c| !is_name(c)).next());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_readme_names_every_example_and_no_command_that_is_not_there() {
    let examples: BTreeSet<String> = fs::read_dir(root().join("examples"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().join("main.rs").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let (run, commands) = (readme_words_after("--example "), readme_words_after("cargo xtask "));
    let known =
        ["setup", "new", "digits", "gpt", "test", "parity", "bench", "torture", "services", "help"].map(str::to_owned);
    none(
        "the README does not say how to run these examples",
        examples.iter().filter(|&name| !run.contains(name) && !commands.contains(name)).cloned().collect(),
    );
    none("the README runs examples that are not there", run.difference(&examples).cloned().collect());
    none(
        "the README names commands that are not there",
        commands.into_iter().filter(|name| !known.contains(name)).collect(),
    );
}

#[test]
fn the_recipes_that_contributing_shows_are_those_that_are_tested() {
    let files = files();
    let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    let contributing = text("CONTRIBUTING.md").unwrap();
    let folder = "tests/recipes/src/";
    let mut shown = BTreeSet::new();
    let mut wrong = Vec::new();
    for block in contributing.split("<!-- tests/recipes/").skip(1) {
        let (path, rest) = block.split_once(" -->\n```rust\n").unwrap();
        let path = format!("tests/recipes/{path}");
        if text(&path).map(str::trim_end) != rest.split_once("\n```").map(|(code, _)| code) {
            wrong.push(path.clone());
        }
        shown.insert(path);
    }
    none("CONTRIBUTING.md shows another text than these files have", wrong);
    let kinds = ["callback", "logger", "metric", "optimizer", "program", "scheduler", "strategy"];
    assert_eq!(shown, kinds.map(|kind| format!("{folder}{kind}.rs")).into());
    // Somebody else has no workspace to inherit from, and no other crate of ours.
    let manifest = text("tests/recipes/Cargo.toml").unwrap();
    let paths = manifest.lines().filter(|line| line.contains("path =") || line.contains("workspace =")).count();
    assert_eq!(paths, 1, "the recipes depend on `fulgurite` alone, and inherit nothing");
}
