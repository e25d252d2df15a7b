//! Packages of Debian's archive, by apt lists of our own: nothing is installed, and the system's apt is left alone.

use crate::command::output;
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of the archive, its lists fetched.
pub(crate) struct Suite {
    name: String,
    folder: PathBuf,
}

impl Suite {
    /// Fetches the lists of the suite `name` into `folder`, which is its alone.
    ///
    /// # Errors
    /// This machine's apt names no archive, or the archive has no such suite any more.
    pub(crate) fn fetch(name: &str, folder: &Path) -> Result<Self> {
        for below in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(below))
                .with_context(|| format!("cannot make {}", folder.join(below).display()))?;
        }
        let archive = archive()?;
        let suite = Self { name: name.into(), folder: folder.into() };
        let list = suite.list();
        fs::write(&list, format!("deb [signed-by={KEYRING}] {archive} {name} main\n"))
            .with_context(|| format!("cannot write {}", list.display()))?;
        output(suite.apt("apt-get").arg("update"))
            .with_context(|| format!("cannot fetch the package lists of Debian {name}"))?;
        Ok(suite)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Names of the suite's packages that begin with `start`.
    pub(crate) fn names(&self, start: &str) -> Result<Vec<String>> {
        let names = output(self.apt("apt-cache").args(["pkgnames", start]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The versions of a package, the newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let offered = output(self.apt("apt-cache").args(["madison", package]))?;
        Ok(offered.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim().to_owned())).collect())
    }

    /// Downloads `package`, a name or `NAME=VERSION`, and unpacks it below `into`. One at a time in a folder.
    pub(crate) fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        output(self.apt("apt-get").args(["download", package]))
            .with_context(|| format!("cannot download {package} of Debian {}", self.name))?;
        let file = fs::read_dir(&self.folder)
            .with_context(|| format!("cannot read {}", self.folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                file.ends_with(".deb") && file.split('_').next() == package.split('=').next()
            })
            .with_context(|| format!("apt-get left no package in {}", self.folder.display()))?;
        output(Command::new("dpkg").arg("-x").arg(&file).arg(into))?;
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
    }

    fn list(&self) -> PathBuf {
        self.folder.join("sources.list")
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::sourcelist", self.list().as_path()),
            ("Dir::Etc::sourceparts", Path::new("/dev/null")),
            ("Dir::State", &self.folder.join("state")),
            ("Dir::State::status", Path::new("/dev/null")),
            ("Dir::Cache", &self.folder.join("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        command
            .args(["-o", "APT::Sandbox::User=root", "-o", "APT::Get::List-Cleanup=0"])
            .args(["-o", "Acquire::Languages=none"])
            .current_dir(&self.folder);
        command
    }
}

/// What the running Debian release is called.
pub(crate) fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(codename.unwrap_or("stable").to_owned())
}

/// The archive's address as this machine's apt knows it: of the entry for the running Debian release.
fn archive() -> Result<String> {
    let mut sources = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        sources.extend(folder.filter_map(|entry| Some(entry.ok()?.path())));
    }
    let texts: Vec<String> = sources.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let codename = codename()?;
    texts
        .iter()
        .find_map(|text| archive_of(text, &codename))
        .with_context(|| format!("this machine's apt sources name no archive for {codename}"))
}

/// The first archive that `text`, in the one-line or the deb822 format, gives for `codename`.
fn archive_of(text: &str, codename: &str) -> Option<String> {
    let one_line = text.lines().find_map(|line| {
        let words: Vec<&str> =
            line.strip_prefix("deb ")?.split_whitespace().filter(|w| !is_option(w)).collect();
        (words.get(1) == Some(&codename)).then(|| words.first().map(ToString::to_string))?
    });
    one_line.or_else(|| {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.split_whitespace())
            };
            let mut suites = field("Suites:")?;
            suites.any(|suite| suite == codename).then(|| field("URIs:")?.next().map(ToString::to_string))?
        })
    })
}

fn is_option(word: &str) -> bool {
    word.starts_with('[') || word.ends_with(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_found_in_either_format() {
        let one_line = "# c\ndeb [arch=amd64] http://archive.example/debian bookworm main\n";
        assert_eq!(archive_of(one_line, "bookworm").as_deref(), Some("http://archive.example/debian"));
        assert_eq!(archive_of(one_line, "trixie"), None);
        let deb822 = "Types: deb\nURIs: http://archive.example/debian\nSuites: bookworm bookworm-updates\n\n\
                      Types: deb\nURIs: http://other.example/x\nSuites: nodistro\n";
        assert_eq!(archive_of(deb822, "bookworm").as_deref(), Some("http://archive.example/debian"));
        assert_eq!(archive_of(deb822, "nodistro").as_deref(), Some("http://other.example/x"));
    }
}
