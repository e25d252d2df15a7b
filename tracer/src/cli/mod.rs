//! Arguments to options to action.

pub mod args;
pub mod options;

use crate::pipeline::{check, live, offline, race, record, replay};
use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use options::{CheckOptions, ExitStatus, LiveOptions, ReplayOptions, Source};
use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

/// Runs the command line; the exit code is 0 clean, 1 findings, 2 error.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) if usage.use_stderr() => {
            // Nobody is left to tell when stderr is closed too, here and below.
            let _ = writeln!(io::stderr(), "{}", usage_line(&usage));
            return ExitCode::from(2);
        }
        // The help or the version, which was asked for.
        Err(asked) => {
            let _ = asked.print();
            return ExitCode::SUCCESS;
        }
    };
    match run(cli) {
        Ok(status) => status.into(),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", error_line(&error));
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitStatus> {
    match cli.command.unwrap_or(Command::Live(cli.live)) {
        Command::Live(args) => {
            let options = LiveOptions::try_from(args)?;
            if io::stdout().is_terminal() { live::tui(options) } else { live::lines(options) }
        }
        Command::Stream(args) => match args.into_options()? {
            (Source::Files(files), options) if options.follow => {
                replay::follow(files, &options, io::stdout().lock())
            }
            (Source::Files(files), options) => offline::stream(files, &options, io::stdout().lock()),
            (Source::Live(live), options) => live::stream(live, options),
        },
        Command::Report(args) => match args.into_options()? {
            (Source::Files(files), options) => offline::report(files, &options, io::stdout().lock()),
            (Source::Live(live), options) => live::report(live, options),
        },
        Command::Race(args) => {
            let (live, options) = args.into_options()?;
            race::race(live, options)
        }
        Command::Replay(args) => {
            let options = ReplayOptions::try_from(args)?;
            if io::stdout().is_terminal() {
                replay::tui(options)
            } else {
                replay::lines(options, io::stdout().lock())
            }
        }
        Command::Record(args) => record::record(args.try_into()?),
        Command::Check(args) => check::check(&CheckOptions::from(args)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dnspath", &mut script);
            print(&script)
        }
        Command::Man => print(&manual()?),
    }
}

/// One page: the command itself, then each subcommand with its options.
fn manual() -> io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command.get_subcommands() {
        let man = clap_mangen::Man::new(subcommand.clone());
        writeln!(page, ".SH \"DNSPATH {}\"", subcommand.get_name().to_uppercase())?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    Ok(page)
}

fn print(bytes: &[u8]) -> anyhow::Result<ExitStatus> {
    io::stdout().lock().write_all(bytes)?;
    Ok(ExitStatus::Clean)
}

/// One line, whatever bytes a path or a file brought into it. A cause that its error already names is not named
/// again.
fn error_line(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    let mut line = String::from("dnspath: ");
    for character in message.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// What clap says on several lines, as one: what is wrong and its tips, and where to read on in place of the usage.
fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty());
    let mut message = String::new();
    for line in said {
        let separator = match message.is_empty() {
            true => "",
            false if line.starts_with("tip:") => "; ",
            false => " ",
        };
        message.push_str(separator);
        message.push_str(line.strip_prefix("error: ").unwrap_or(line));
    }
    error_line(&anyhow::anyhow!(
        "{message}; `dnspath --help` and `dnspath COMMAND --help` list what there is"
    ))
}

/// A reader that went away (`dnspath stream | head`) is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests;
