//! A network namespace that a sleeping process holds, as a pod's pause container does: with the network go a
//! mount namespace and in it a resolv.conf, hosts and nsswitch.conf of its own. Nothing is written below `/etc`.

use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::clock::wait_until;
use crate::process::{Process, bound_command, run_with_input};

/// Long enough for any set-up command on a loaded machine.
pub(crate) const SETUP_LIMIT: Duration = Duration::from_secs(120);

/// Mounts the files in `$1` over `/etc`'s, applies the sysctls on standard input, then sleeps for good.
/// nscd's socket is hidden: it would answer in place of the resolver under test.
const PAUSE: &str = r#"
for file in resolv.conf hosts nsswitch.conf; do
  [ -e "/etc/$file" ] && { mount --bind "$1/$file" "/etc/$file" || exit 1; }
done
[ -d /run/nscd ] && mount -t tmpfs none /run/nscd
while read -r value path; do
  { [ -e "/proc/sys/$path" ] && echo "$value" > "/proc/sys/$path"; } || { echo "cannot set $path" >&2; exit 1; }
done < "$1/sysctls"
echo up
exec sleep infinity
"#;

/// What every namespace starts with: IPv6 addresses usable at once, no chatter, no filtering by route.
const COMMON_SYSCTLS: &str = "\
0 net/ipv6/conf/all/disable_ipv6
0 net/ipv6/conf/default/disable_ipv6
0 net/ipv6/conf/default/accept_dad
0 net/ipv6/conf/default/dad_transmits
0 net/ipv6/conf/default/router_solicitations
0 net/ipv6/conf/default/accept_ra
0 net/ipv4/conf/all/rp_filter
0 net/ipv4/conf/default/rp_filter
";

/// Sysctls of a namespace that forwards packets and shows bridged ones to netfilter.
pub(crate) const NODE_SYSCTLS: &str = "\
1 net/ipv4/ip_forward
1 net/ipv6/conf/all/forwarding
1 net/bridge/bridge-nf-call-iptables
1 net/bridge/bridge-nf-call-ip6tables
";

/// Sysctls of a namespace that is only a switch.
pub(crate) const SWITCH_SYSCTLS: &str = "\
0 net/bridge/bridge-nf-call-iptables
0 net/bridge/bridge-nf-call-ip6tables
";

/// One namespace of the lab and the process that holds it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    files: PathBuf,
    pause: Process,
}

impl Namespace {
    /// Starts the process that holds the namespace `name`, which exists already. `directory` is the lab's own;
    /// `sysctls` are lines of value and path below `/proc/sys`. The namespace can be used after
    /// [`Namespace::wait_ready`].
    pub(crate) fn start(name: &str, directory: &Path, resolv_conf: &str, sysctls: &str) -> Result<Self> {
        let files = directory.join(name);
        fs::create_dir_all(&files).with_context(|| format!("cannot create {}", files.display()))?;
        let write = |file: &str, text: &str| {
            fs::write(files.join(file), text).with_context(|| format!("cannot write {name}'s {file}"))
        };
        write("resolv.conf", resolv_conf)?;
        write("hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
        write("nsswitch.conf", "hosts: files dns\n")?;
        write("sysctls", &format!("{COMMON_SYSCTLS}{sysctls}"))?;
        let mut command = bound_command("ip");
        command.args(["netns", "exec", name, "sh", "-c", PAUSE, "pause"]).arg(&files);
        let pause = Process::spawn_with_stdout(name, &mut command, Stdio::piped(), &files.join("pause.log"))?;
        Ok(Self { name: name.to_owned(), files, pause })
    }

    /// Waits until the namespace's mounts and sysctls are in place.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let mut word = [0_u8; 3];
        let ready = self.pause.take_stdout().is_some_and(|mut pipe| pipe.read_exact(&mut word).is_ok());
        if !ready {
            bail!("the namespace {} cannot be set up: {}", self.name, self.pause.log()?.trim());
        }
        Ok(())
    }

    /// Waits until an interface carries packets: it is up, and forwards where it is a port of a bridge. The kernel
    /// brings that about some time after the command that asks for it.
    pub(crate) fn wait_link_up(&self, interface: &str) -> Result<()> {
        // The holder's /sys shows its own network.
        let device = PathBuf::from(format!("/proc/{}/root/sys/class/net/{interface}", self.pause_pid()));
        let says = |file: &str, text: &str| {
            fs::read_to_string(device.join(file)).is_ok_and(|content| content.trim() == text)
        };
        // BR_STATE_FORWARDING
        let forwards = || !device.join("brport").exists() || says("brport/state", "3");
        if !wait_until(SETUP_LIMIT, || says("operstate", "up") && forwards()) {
            bail!("the interface {interface} of {} does not come up", self.name);
        }
        Ok(())
    }

    /// Its name below `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pid of the process that holds it.
    pub fn pause_pid(&self) -> u32 {
        self.pause.pid()
    }

    /// The directory of its files and logs.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// Replaces its resolv.conf, for lookups that start from now on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_resolv_conf(&self, text: &str) -> Result<()> {
        // In place: the bind mount holds this inode.
        fs::write(self.files.join("resolv.conf"), text)
            .with_context(|| format!("cannot write {}'s resolv.conf", self.name))
    }

    /// A command in this network and mount namespace. It dies with the calling thread.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let pid = self.pause_pid();
        let mut command = bound_command("nsenter");
        command
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a shell script here, stopping at its first error.
    ///
    /// # Errors
    /// A command of the script fails; the message has its standard error.
    pub fn script(&self, script: &str) -> Result<String> {
        let output = run_with_input(self.command("sh").args(["-e", "-s"]), script, SETUP_LIMIT)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs one command here to its end and returns its standard output.
    ///
    /// # Errors
    /// It fails, or takes longer than half a minute.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = run_with_input(self.command(program).args(arguments), "", SETUP_LIMIT)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Calls `work` in a thread of its own that has entered this network namespace; sockets it makes stay here.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        enter(&self.file(), work)
    }

    /// A file that refers to it.
    pub(crate) fn file(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pause_pid()).into()
    }

    /// A UDP socket in this namespace, bound to `local`.
    ///
    /// # Errors
    /// The namespace cannot be entered or the address cannot be bound.
    pub fn udp_socket(&self, local: impl Into<IpAddr>, port: u16) -> Result<UdpSocket> {
        let address = SocketAddr::new(local.into(), port);
        self.enter(|| UdpSocket::bind(address))?
            .with_context(|| format!("cannot bind {address} in {}", self.name))
    }
}

/// Calls `work` in a thread of its own that has entered the network namespace of this file.
pub(crate) fn enter<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let shown = namespace.display();
    let handle = File::open(namespace).with_context(|| format!("cannot open {shown}"))?;
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter the namespace {shown}"))?;
            Ok(work())
        });
        inside.join().map_err(|_| anyhow!("the work inside {shown} panicked"))?
    })
}

/// Runs a batch of `ip` commands: one process for all of them. `namespace` is the one they act in, if not ours.
pub(crate) fn ip_batch(namespace: Option<&str>, batch: &str) -> Result<()> {
    let mut command = bound_command("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    run_with_input(command.args(["-batch", "-"]), batch, SETUP_LIMIT).map(drop)
}
