//! A real terminal for programs that draw: a pane of a tmux of its own, in a namespace of the lab.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::clock::wait_until;
use crate::namespace::Namespace;
use crate::process::run;

/// Long enough for any tmux command on a loaded machine.
const LIMIT: Duration = Duration::from_secs(20);
/// The shell's prompt.
const PROMPT: &str = "prompt>";

/// A terminal with a shell in it. Dropping it ends both.
#[derive(Debug)]
pub struct Screen<'a> {
    namespace: &'a Namespace,
}

/// What a terminal is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminalState {
    /// `stty -a`.
    pub line: String,
    /// The alternate screen is shown; the cursor is; some kind of mouse report is on; the title.
    pub flags: String,
}

impl<'a> Screen<'a> {
    /// A terminal of so many columns and lines in `namespace`; returns once the shell prompts. One at a time in a
    /// namespace.
    ///
    /// # Errors
    /// tmux is missing or does not start.
    pub fn start(namespace: &'a Namespace, columns: u16, lines: u16) -> Result<Self> {
        let screen = Self { namespace };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let shell = format!("env PS1='{PROMPT} ' ENV= sh");
        screen.tmux(&["new-session", "-d", "-s", "lab", "-x", &columns, "-y", &lines, &shell])?;
        screen.wait_for("the shell's prompt", |text| text.contains(PROMPT))?;
        Ok(screen)
    }

    fn command(&self) -> Command {
        let mut command = self.namespace.command("tmux");
        // Its socket goes with the lab.
        command.env("TMUX_TMPDIR", self.namespace.files()).env("LC_ALL", "C.UTF-8");
        for name in ["TMUX", "NO_COLOR", "COLORTERM"] {
            command.env_remove(name);
        }
        command.args(["-u", "-L", "screen", "-f", "/dev/null"]);
        command
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let output = run(self.command().args(arguments), LIMIT)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Types text and presses Enter.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn type_line(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-t", "lab", "-l", "--", text])?;
        self.press(&["Enter"])
    }

    /// Presses keys one after another, by tmux's names for them.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            self.tmux(&["send-keys", "-t", "lab", key])?;
            if *key == "Escape" {
                // What follows it at once is taken for a key with Alt.
                sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// What is on the screen now.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn text(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-t", "lab"])
    }

    /// What is on the screen now, with the sequences that give it its colours.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn text_with_colours(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e", "-t", "lab"])
    }

    /// Waits until the screen is as wanted, and returns it.
    ///
    /// # Errors
    /// It is not within 10 s; the message has the screen.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut text = String::new();
        let came = wait_until(Duration::from_secs(10), || {
            text = self.text().unwrap_or_default();
            wanted(&text)
        });
        if !came {
            bail!("{what} is not on the screen:\n{text}");
        }
        Ok(text)
    }

    /// Changes its size.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        self.tmux(&["resize-window", "-t", "lab", "-x", &columns, "-y", &lines]).map(drop)
    }

    /// What the terminal is set to; the shell must be waiting for a command.
    ///
    /// # Errors
    /// The shell does not answer.
    pub fn state(&self) -> Result<TerminalState> {
        let file = self.namespace.files().join("stty");
        if file.exists() {
            std::fs::remove_file(&file).context("cannot remove the old stty file")?;
        }
        let path = file.display();
        self.type_line(&format!("stty -a > {path}.new; mv {path}.new {path}"))?;
        ensure!(wait_until(LIMIT, || file.exists()), "the shell does not answer:\n{}", self.text()?);
        let line = std::fs::read_to_string(&file).context("cannot read what stty says")?;
        let format =
            "alternate #{alternate_on} cursor #{cursor_flag} mouse #{mouse_any_flag} title #{pane_title}";
        Ok(TerminalState { line, flags: self.tmux(&["display-message", "-p", "-t", "lab", format])? })
    }

    /// The pid of the program that the shell runs.
    ///
    /// # Errors
    /// It runs none.
    pub fn program(&self) -> Result<u32> {
        let shell = self.tmux(&["display-message", "-p", "-t", "lab", "#{pane_pid}"])?;
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))
            .context("cannot list the shell's programs")?;
        let pid = children.split_whitespace().next().context("the shell runs no program")?;
        pid.parse().context("not a pid")
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // The lab's end would end it too.
        let _ = self.tmux(&["kill-server"]);
    }
}
