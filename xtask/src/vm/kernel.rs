//! A Debian kernel: which one the suite has now, its image, and the modules that the tests need.

use super::newc::Archive;
use crate::{
    command::{say, target},
    debian::Suite,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Kernel series and the Debian suite that has it.
pub(super) const SERIES: [(&str, &str); 4] =
    [("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie"), ("7.2", "trixie-backports")];

/// The small kernels, without drivers of real hardware.
const FLAVOUR: &str = "-cloud-amd64";

/// What the lab's links, rules and provocations need; a kernel that has one built in, or does not know it, has no
/// such file.
const MODULES: &str = "veth bridge br_netfilter sch_ingress cls_bpf act_bpf \
    nf_conntrack nf_nat nf_conntrack_netlink nfnetlink_queue nf_tables \
    nft_chain_nat nft_compat nft_counter nft_ct nft_masq nft_nat nft_queue nft_reject_inet \
    xt_addrtype xt_comment xt_conntrack xt_CT xt_limit xt_mark xt_MASQUERADE xt_nat xt_statistic xt_string xt_tcpudp \
    ts_bm ipt_REJECT ip6t_REJECT";

/// An unpacked kernel.
pub(super) struct Kernel {
    /// What `uname -r` says.
    pub(super) release: String,
    /// Where its files, and those of its runs, are.
    pub(super) folder: PathBuf,
    unpacked: PathBuf,
}

impl Kernel {
    /// The kernel of a series that was downloaded before, else the newest that its suite has now.
    pub(super) fn get(series: &str, suite: &str) -> Result<Self> {
        let folder = target().join("vm").join(series);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let marker = folder.join("release");
        let unpacked = folder.join("kernel");
        if let Ok(release) = fs::read_to_string(&marker) {
            return Ok(Self { release, folder, unpacked });
        }
        say(&format!("vm: getting Debian's kernel {series} ({suite})"));
        let suite = Suite::fetch(suite, &folder.join("apt"))?;
        let release = newest(&suite, series)?;
        // What an interrupted run left; often there is nothing.
        let _ = fs::remove_dir_all(&unpacked);
        // The image and the modules are two packages in newer suites.
        if suite.names(&format!("linux-binary-{release}"))?.is_empty() {
            suite.unpack(&format!("linux-image-{release}"), &unpacked)?;
        } else {
            suite.unpack(&format!("linux-binary-{release}"), &unpacked)?;
            suite.unpack(&format!("linux-modules-{release}"), &unpacked)?;
        }
        fs::write(&marker, &release).with_context(|| format!("cannot write {}", marker.display()))?;
        Ok(Self { release, folder, unpacked })
    }

    /// The kernel image.
    pub(super) fn image(&self) -> Result<PathBuf> {
        [format!("boot/vmlinuz-{}", self.release), format!("usr/lib/modules/{}/vmlinuz", self.release)]
            .map(|path| self.unpacked.join(path))
            .into_iter()
            .find(|path| path.is_file())
            .with_context(|| format!("the packages of {} hold no vmlinuz", self.release))
    }

    /// An archive of the modules, `/modules/NAME.ko`, and of `/modules/order`, their names as they are to be loaded.
    /// Made once.
    pub(super) fn modules(&self) -> Result<PathBuf> {
        let (made, list) = (self.folder.join("modules.cpio"), self.folder.join("modules.list"));
        if made.is_file() && fs::read_to_string(&list).is_ok_and(|made_of| made_of == MODULES) {
            return Ok(made);
        }
        let mut files = HashMap::new();
        for folder in ["lib/modules", "usr/lib/modules"] {
            find_modules(&self.unpacked.join(folder).join(&self.release), &mut files)?;
        }
        if files.is_empty() {
            bail!("the packages of {} hold no modules", self.release);
        }
        let mut loader = Loader { files, order: Vec::new(), archive: Archive::default() };
        loader.archive.folder("modules");
        for name in MODULES.split_whitespace() {
            loader.add(name)?;
        }
        loader.archive.file("modules/order", 0o644, (loader.order.join("\n") + "\n").as_bytes());
        fs::write(&made, loader.archive.finish())
            .with_context(|| format!("cannot write {}", made.display()))?;
        fs::write(&list, MODULES).with_context(|| format!("cannot write {}", list.display()))?;
        Ok(made)
    }
}

/// The release of the newest kernel of a series that the suite has.
fn newest(suite: &Suite, series: &str) -> Result<String> {
    let releases = |start: &str| -> Result<Vec<String>> {
        let names = suite.names(start)?;
        Ok(names
            .iter()
            .filter_map(|name| name.strip_prefix("linux-image-"))
            .filter(|release| release.ends_with(FLAVOUR) && release.starts_with(|c: char| c.is_ascii_digit()))
            .map(str::to_owned)
            .collect())
    };
    let offered = releases(&format!("linux-image-{series}."))?;
    let newest = offered.iter().max_by_key(|release| version(release)).cloned();
    newest.with_context(|| {
        let others = releases("linux-image-").unwrap_or_default();
        let others = others.iter().max_by_key(|release| version(release));
        format!(
            "Debian {} offers no kernel {series} any more{}",
            suite.name(),
            others.map_or_else(String::new, |other| format!(": its newest is {other}"))
        )
    })
}

/// The numbers in a release, to compare by: `6.12.107+deb13-cloud-amd64` after `6.12.99+deb13-cloud-amd64`.
fn version(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Finds the files of all modules below `folder`, by module name.
fn find_modules(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.is_dir() {
            find_modules(&path, files)?;
        } else if let Some((name, _)) =
            path.file_name().unwrap_or_default().to_string_lossy().split_once(".ko")
        {
            files.insert(name.replace('-', "_"), path.clone());
        }
    }
    Ok(())
}

/// Collects modules, each after those that it needs.
struct Loader {
    files: HashMap<String, PathBuf>,
    order: Vec<String>,
    archive: Archive,
}

impl Loader {
    fn add(&mut self, name: &str) -> Result<()> {
        if self.order.iter().any(|known| known == name) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else { return Ok(()) };
        let module = decompressed(path)?;
        for needed in needed_by(&module) {
            self.add(&needed)?;
        }
        self.archive.file(&format!("modules/{name}.ko"), 0o644, &module);
        self.order.push(name.to_owned());
        Ok(())
    }
}

/// A module's object file. Debian compresses the modules of newer kernels.
fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().unwrap_or_default().to_str() {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let run = Command::new(program).arg("-dc").arg(path).stderr(Stdio::inherit()).output();
    let run = run.with_context(|| format!("cannot start {program} (Debian's xz-utils or zstd)"))?;
    if !run.status.success() {
        bail!("{program} cannot decompress {}", path.display());
    }
    Ok(run.stdout)
}

/// What the module's `.modinfo` says that it depends on: `depends=nf_conntrack,nf_defrag_ipv4`.
fn needed_by(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(start) = module.windows(FIELD.len()).position(|window| window == FIELD) else {
        return Vec::new();
    };
    let value = module[start + FIELD.len()..].split(|octet| *octet == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_told_by_its_numbers() {
        let mut releases = ["6.12.99+deb13-cloud-amd64", "6.12.107+deb13-cloud-amd64", "6.12.9-cloud-amd64"];
        releases.sort_by_key(|release| version(release));
        assert_eq!(releases[2], "6.12.107+deb13-cloud-amd64");
    }

    #[test]
    fn needs_are_read_from_modinfo() {
        let module = b"\x7fELF...\0license=GPL\0depends=nf_conntrack,nf-nat\0name=x\0";
        assert_eq!(needed_by(module), ["nf_conntrack", "nf_nat"]);
        assert!(needed_by(b"\0depends=\0").is_empty());
        assert!(needed_by(b"").is_empty());
    }
}
