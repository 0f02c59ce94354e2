//! The files of a dataset that is cut into shards.

use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;

/// The most shards that one pattern may name.
const MOST: usize = 1 << 20;

/// The paths that a pattern stands for, all of which exist: `{000..015}` for numbers, `{a,b}` for alternatives, and `*` within
/// the name of the file for anything, in the order of the names.
pub(crate) fn shard_paths(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = Vec::new();
    for path in expand_braces(pattern)? {
        match path.contains('*') {
            true => paths.extend(matching(Path::new(&path))?),
            false => paths.push(PathBuf::from(path)),
        }
    }
    checked(paths)
}

/// The same paths, if there are any and each is a file.
pub(crate) fn checked(paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, DataError> {
    if paths.is_empty() {
        return Err(DataError::Setting("a dataset of shards has at least one".into()));
    }
    match paths.iter().find(|path| !path.is_file()) {
        Some(path) => Err(DataError::Missing(format!("the shard {} is not there, or is no file", path.display()))),
        None => Ok(paths),
    }
}

/// All that the braces of a pattern stand for, as in a shell.
fn expand_braces(pattern: &str) -> Result<Vec<String>, DataError> {
    let mut expanded = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((within, after)) = after.split_once('}') else {
            return Err(DataError::Setting(format!("a brace of `{pattern}` is not closed")));
        };
        let choices = choices(within, pattern)?;
        if expanded.len().saturating_mul(choices.len()) > MOST {
            return Err(DataError::Setting(format!("`{pattern}` stands for more than {MOST} shards")));
        }
        let each = |begin: &String| choices.iter().map(|choice| format!("{begin}{before}{choice}")).collect::<Vec<_>>();
        expanded = expanded.iter().flat_map(each).collect();
        rest = after;
    }
    Ok(expanded.into_iter().map(|begin| begin + rest).collect())
}

/// `000..015` or `a,b`.
fn choices(within: &str, pattern: &str) -> Result<Vec<String>, DataError> {
    let Some((first, last)) = within.split_once("..") else {
        return Ok(within.split(',').map(str::to_owned).collect());
    };
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(from), Ok(to)) if from <= to && to - from < MOST => {
            Ok((from..=to).map(|number| format!("{number:0width$}", width = first.len())).collect())
        }
        _ => Err(DataError::Setting(format!(
            "`{{{within}}}` of `{pattern}` is no range; write two numbers, the smaller one first, such as {{000..015}}"
        ))),
    }
}

/// The files of a folder whose names match, in order.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    if folder.to_string_lossy().contains('*') {
        return Err(DataError::Setting(format!(
            "`{}`: a `*` is for names of files, not of folders",
            pattern.display()
        )));
    }
    let failed = |source| DataError::Io { path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if fits(&name, &entry.file_name().to_string_lossy()) {
            found.push(folder.join(entry.file_name()));
        }
    }
    if found.is_empty() {
        return Err(DataError::Missing(format!("no file matches {}", pattern.display())));
    }
    found.sort();
    Ok(found)
}

/// Whether a name has the parts between the stars, in their order.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_expand_as_in_a_shell() {
        assert_eq!(expand_braces("a-{08..10}.tar").unwrap(), ["a-08.tar", "a-09.tar", "a-10.tar"]);
        assert_eq!(expand_braces("{x,y}/{0..1}").unwrap(), ["x/0", "x/1", "y/0", "y/1"]);
        assert_eq!(expand_braces("plain.tar").unwrap(), ["plain.tar"]);
        let error = |pattern: &str| expand_braces(pattern).unwrap_err().to_string();
        assert_eq!(
            error("a-{9..1}"),
            "`{9..1}` of `a-{9..1}` is no range; write two numbers, the smaller one first, such as {000..015}"
        );
        assert_eq!(error("a-{1..2"), "a brace of `a-{1..2` is not closed");
        assert_eq!(error("{0..9999}{0..9999}"), "`{0..9999}{0..9999}` stands for more than 1048576 shards");
    }

    #[test]
    fn stars_stand_for_anything_in_a_name() {
        assert!(fits("train-*.parquet", "train-00-of-02.parquet") && fits("*", "x") && fits("a*b*c", "a-b-b-c"));
        assert!(!fits("train-*.parquet", "train-.parque") && !fits("a*b", "a") && !fits("ab*ba", "aba"));
    }
}
