//! What stands out, and how. Colour only repeats what a word or a sign already says.

use ratatui::style::{Color, Modifier, Style};

/// Why a piece of text is not plain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Something broke: no answer, loss.
    Bad,
    /// Titles, labels, what is less important.
    Dim,
    /// The name of the thing that is shown.
    Head,
    /// Nothing to say.
    #[default]
    Plain,
    /// Unusual, not broken.
    Warn,
}

/// The styles of a session.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    colour: bool,
}

impl Theme {
    /// With colours.
    pub const COLOUR: Self = Self { colour: true };
    /// Bold and reverse only.
    pub const PLAIN: Self = Self { colour: false };

    /// What the environment asks for: no colours where `NO_COLOR` is set to anything but the empty string
    /// (no-color.org), or on a dumb terminal.
    #[must_use]
    pub fn from_env() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colour: !no_color && !dumb }
    }

    pub(super) fn style(self, tone: Tone) -> Style {
        let plain = Style::default();
        let colour = |colour| if self.colour { plain.fg(colour) } else { plain };
        match tone {
            Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Dim => plain.add_modifier(Modifier::DIM),
            Tone::Head => plain.add_modifier(Modifier::BOLD),
            Tone::Warn => colour(Color::Yellow),
            Tone::Plain => plain,
        }
    }

    /// The line under the cursor, and the current tab.
    pub(super) fn selected(self) -> Style {
        Style::default().add_modifier(Modifier::REVERSED)
    }
}
