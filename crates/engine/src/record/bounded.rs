//! Texts of a bounded length.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use fulgurite_torch::printable;

/// A text without what a terminal would obey, cut to so many bytes.
pub(super) fn at_most(bytes: usize, text: &str) -> Cow<'_, str> {
    at_most_of(bytes, printable(text))
}

pub(super) fn at_most_of(bytes: usize, text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..end]))
}

/// The beginning of a file, if it is one and has text.
pub(super) fn beginning_of(path: &Path, bytes: u64) -> Option<String> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    File::open(path).ok()?.take(bytes).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(at_most(3, "abc"), "abc");
        assert_eq!(at_most(3, "aéé"), "aé…");
        assert_eq!(at_most(0, "é"), "…");
        assert_eq!(at_most(9, "a\u{1b}"), "a\\u{1b}");
    }
}
