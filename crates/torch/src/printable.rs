//! Escaping of untrusted text for terminals.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with all characters escaped, as in a Rust string, that a terminal would interpret or that could mislead a
/// reader: control characters (C0 without line feed and tab, DEL, C1) and bidirectional controls.
///
/// Text from files, configurations, other processes and the network may contain escape sequences that move the
/// cursor, change the title or inject input. Everything that Fulgurite prints is escaped by this function.
///
/// ```
/// use fulgurite_torch::printable;
///
/// assert_eq!(printable("layer.\u{1b}[2Jweight\n"), "layer.\\u{1b}[2Jweight\n");
/// assert!(matches!(printable("größer → ✓"), std::borrow::Cow::Borrowed(_)));
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |c| !matches!(c, '\n' | '\t') && is_obeyed(c))
}

/// The same for text within a line, such as a name in a table: line feeds and tabs are escaped, too.
///
/// ```
/// assert_eq!(fulgurite_torch::printable_in_line("weight\nwhole: yes"), "weight\\nwhole: yes");
/// ```
pub fn printable_in_line(text: &str) -> Cow<'_, str> {
    escape(text, is_obeyed)
}

fn is_obeyed(c: char) -> bool {
    let turns_text =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let ends_line = matches!(c, '\u{2028}' | '\u{2029}');
    c.is_control() || turns_text || ends_line
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(&is_escaped) else { return Cow::Borrowed(text) };
    let mut escaped = text[..first].to_owned();
    for c in text[first..].chars() {
        match is_escaped(c) {
            true if matches!(c, '\n' | '\r' | '\t') => escaped.extend(c.escape_default()),
            // Writing to a `String` does not fail.
            true => _ = write!(escaped, "{}", c.escape_unicode()),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let controls = (0..0xa0).filter_map(char::from_u32).filter(|c| c.is_control());
        let turning =
            ('\u{200e}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').filter(|c| !('\u{2010}'..'\u{2028}').contains(c));
        for c in controls.chain(turning) {
            let escaped = printable_in_line(c.encode_utf8(&mut [0; 4])).into_owned();
            assert!(
                escaped.is_ascii() && escaped.starts_with('\\') && !escaped.contains(char::is_control),
                "{escaped:?}"
            );
        }
        assert_eq!(printable("a\tb\nc\r\x1b]0;x\x07\u{9b}1m"), "a\tb\nc\\r\\u{1b}]0;x\\u{7}\\u{9b}1m");
        assert_eq!(printable_in_line("a\tb\nc"), "a\\tb\\nc");
    }

    #[test]
    fn other_text_is_untouched() {
        let text = "loss ─ größer → ✓ 损失 \u{1f600}\u{200d}\n\t\"quoted\" \\ %";
        assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
    }
}
