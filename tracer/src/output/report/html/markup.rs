//! Text inside a page: nothing that comes from a packet, a file or a pod's name is markup.

use crate::output::text;
use std::fmt;

/// A value's text, for an element's content or a quoted attribute.
pub(super) struct Escaped<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.to_string();
        for c in shown.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if text::is_harmless(c) || c == '…' || c == 'µ' => write!(f, "{c}")?,
                c => write!(f, "{}", c.escape_unicode())?,
            }
        }
        Ok(())
    }
}

/// At most `most` characters of `text`, with `…` for the rest.
pub(super) fn clipped(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_markup_or_turns_the_writing_direction() {
        let shown = Escaped("<script>\"'&\u{202e}é\u{1b}").to_string();
        assert_eq!(shown, "&lt;script&gt;&quot;&#39;&amp;\\u{202e}é\\u{1b}");
        assert_eq!((clipped("abcdef", 4).as_str(), clipped("abcd", 4).as_str()), ("abc…", "abcd"));
    }
}
