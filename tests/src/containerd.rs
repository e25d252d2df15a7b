//! A node with a real containerd, runc and CNI bridge, in a network and a mount namespace of its own: nothing of it is
//! seen outside, and all of it goes with its owner. Pods are made with containerd's own client, with the annotations,
//! the cgroup and the network that the kubelet would ask for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::wait_until;
use crate::process::{Process, bound_command, run};
use crate::requirements::find;
use crate::responder::Responder;

/// Answers every query on the node with NXDOMAIN.
const SERVER: &str = r#"
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_IP, 15, 1)
server.bind((sys.argv[1], 53))
while True:
    query, client = server.recvfrom(512)
    server.sendto(query[:2] + b"\x81\x83" + query[4:6] + b"\0\0\0\0\0\0" + query[12:], client)
"#;

/// Long enough for runc on a loaded machine: while many namespaces go, one has stood still for two minutes.
const LIMIT: Duration = Duration::from_secs(300);

/// containerd's own client, which gives up after ten seconds by default: on a loaded machine containerd takes longer.
const CTR: &str = "ctr --connect-timeout 60s";

/// The bridge's address: pods ask it.
pub const GATEWAY: &str = "10.98.0.1";

/// So few addresses that pods soon use those of others that are gone.
const NETWORK: &str = r#"{"cniVersion":"0.4.0","name":"lab","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,
"ipMasq":false,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.98.0.0/24","rangeStart":"10.98.0.10","rangeEnd":"10.98.0.40"}]]}}]}"#;

const CONFIG: &str = r#"version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
"#;

/// Hides the machine's own directories, then becomes containerd. `$1` has the files, `$2` the CNI plugins, `$3` names them.
const NODE: &str = r#"
for directory in $3; do
  [ -d "$directory" ] || mkdir -p "$directory"
  mount -t tmpfs none "$directory"
done
mkdir -p /etc/cni/net.d /opt/cni/bin
cp "$1/lab.conflist" /etc/cni/net.d/
cp "$2/bridge" "$2/host-local" "$2/loopback" /opt/cni/bin/
ip link set lo up
# A virtual machine has no cgroups before somebody mounts them: version 2.
grep -q cgroup /proc/self/mounts || mount -t cgroup2 none /sys/fs/cgroup
exec containerd -c "$1/config.toml"
"#;

/// Makes the root of a container, `$1/container`, and becomes the program `$2` in it with the other arguments; `$3` is what
/// of the node it has at `/host`, if anything.
const CONTAINER: &str = r#"
root="$1/container"
mkdir -p "$root"
mount -t tmpfs none "$root"
for directory in bin lib lib64 sys usr; do
  if [ -L "/$directory" ]; then
    cp -P "/$directory" "$root/$directory"
  elif [ -d "/$directory" ]; then
    mkdir "$root/$directory"
    mount --rbind "/$directory" "$root/$directory"
  fi
done
cp "$2" "$root/program"
mkdir "$root/proc"
if [ -n "$3" ]; then
  mkdir "$root/host"
  mount --rbind "$3" "$root/host"
fi
mount -t proc proc "$root/proc"
shift 3
exec chroot "$root" /program "$@"
"#;

/// The node.
#[derive(Debug)]
pub struct Containerd {
    name: String,
    files: tempfile::TempDir,
    path: String,
    process: Process,
    /// Directories that were not there, and are only mounted over.
    made: Vec<&'static str>,
}

/// What the node has for itself.
const OWN: [&str; 5] = ["/run/containerd", "/var/lib/containerd", "/var/lib/cni", "/etc/cni", "/opt"];

/// Where containerd, its client, runc and the CNI plugins are; why not, where they are not.
fn programs() -> Result<(String, PathBuf), String> {
    let unpacked = std::env::var_os("DNSPATH_CONTAINERD").map(PathBuf::from);
    let path = std::env::var("PATH").unwrap_or_default();
    let (path, plugins) = match &unpacked {
        Some(root) => (format!("{0}/usr/bin:{0}/usr/sbin:{path}", root.display()), root.join("usr/lib/cni")),
        None => (path, PathBuf::from("/usr/lib/cni")),
    };
    let is_there =
        |program: &str| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    for (program, package) in [("containerd", "containerd"), ("ctr", "containerd"), ("runc", "runc")] {
        if !is_there(program) {
            return Err(format!(
                "{program} is missing (package {package}; DNSPATH_CONTAINERD may name a directory it is unpacked in)"
            ));
        }
    }
    if !plugins.join("bridge").is_file() {
        return Err(format!(
            "{} is missing (package containernetworking-plugins)",
            plugins.join("bridge").display()
        ));
    }
    match find("busybox") {
        Some(_) => Ok((path, plugins)),
        None => Err("busybox is missing (package busybox-static)".to_owned()),
    }
}

impl Containerd {
    /// Why there can be none here; `None` where there can.
    pub fn why_not() -> Option<String> {
        programs().err()
    }

    /// Starts the node.
    ///
    /// # Errors
    /// A program is missing, or containerd does not come up: the message has what it said.
    pub fn start() -> Result<Self> {
        let (path, plugins) = programs().map_err(anyhow::Error::msg)?;
        let name = format!("dp{}-containerd", std::process::id());
        let files = tempfile::tempdir().context("cannot make a directory")?;
        let write = |file: &str, text: &str| fs::write(files.path().join(file), text).context("cannot write");
        write("lab.conflist", NETWORK)?;
        write("config.toml", CONFIG)?;
        let rootfs = files.path().join("rootfs");
        for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(directory)).context("cannot make the root of pods")?;
        }
        let busybox = find("busybox").context("busybox is missing")?;
        fs::copy(busybox, rootfs.join("bin/busybox")).context("cannot copy busybox")?;
        for applet in ["nslookup", "sh", "sleep"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).context("cannot link")?;
        }
        fs::write(
            rootfs.join("etc/resolv.conf"),
            format!("nameserver {GATEWAY}\nsearch a.example b.example\n"),
        )
        .context("cannot write the pods' resolv.conf")?;
        let made = OWN.into_iter().filter(|directory| !Path::new(directory).exists()).collect();
        run(bound_command("ip").args(["netns", "add", &name]), LIMIT)?;
        let mut command = bound_command("unshare");
        command
            .args(["--mount", "nsenter"])
            .arg(format!("--net=/run/netns/{name}"))
            .args(["sh", "-e", "-c", NODE, "node"])
            .arg(files.path())
            .arg(plugins)
            .arg(OWN.join(" "))
            .env("PATH", &path);
        let process = Process::spawn_with_stdout(
            "containerd",
            &mut command,
            Stdio::null(),
            &files.path().join("containerd.log"),
        )?;
        let node = Self { name, files, path, process, made };
        let answers = || node.sh(&format!("{CTR} version >/dev/null 2>&1")).is_ok();
        if !wait_until(LIMIT, answers) {
            bail!("containerd does not come up: {}", node.process.log()?.trim());
        }
        Ok(node)
    }

    /// A directory for the files of a test.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// A command on the node: in its network and mount namespaces.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let pid = self.process.pid();
        let mut command = bound_command("nsenter");
        command
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .arg("--")
            .arg(program)
            .env("PATH", &self.path);
        command
    }

    /// A command that becomes this program in a container with the node's network, as a pod of a DaemonSet has it that
    /// the directory `host` of the node at `/host`, or nothing of it: of the node's processes and files it sees only what
    /// is below.
    pub fn command_in_container(&self, program: &Path, host: Option<&str>) -> Command {
        let mut command = self.command("unshare");
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-e",
            "-c",
            CONTAINER,
            "container",
        ]);
        command.arg(self.files()).arg(program).arg(host.unwrap_or_default());
        command
    }

    /// Runs a line of shell on the node.
    ///
    /// # Errors
    /// It fails.
    pub fn sh(&self, line: &str) -> Result<String> {
        let output = run(self.command("sh").args(["-e", "-c", line]), LIMIT)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes pod number `number` of the namespace `shop`, which runs `script`; its name is [`pod_name`].
    ///
    /// # Errors
    /// containerd refuses.
    pub fn run_pod(&self, number: u32, script: &str) -> Result<()> {
        self.make_pod(number, script, None)
    }

    /// The same with a resolv.conf of its own, mounted as the kubelet does.
    ///
    /// # Errors
    /// containerd refuses.
    pub fn run_pod_with(&self, number: u32, script: &str, resolv_conf: &str) -> Result<()> {
        let file = self.resolv_conf_of(number);
        fs::write(&file, resolv_conf).context("cannot write a pod's resolv.conf")?;
        self.make_pod(number, script, Some(&file))
    }

    fn make_pod(&self, number: u32, script: &str, resolv_conf: Option<&Path>) -> Result<()> {
        let annotations = [("container-type", "sandbox")];
        self.run_in_pod(number, &id_of(number), &annotations, &["--cni"], resolv_conf, script)
    }

    /// Makes pod number `number` in the node's own network (`hostNetwork`), with one container `app`, which runs `script`.
    ///
    /// # Errors
    /// containerd refuses.
    pub fn run_host_pod(&self, number: u32, script: &str) -> Result<()> {
        let annotations = [("container-type", "container"), ("container-name", "app")];
        self.run_in_pod(number, &id_of(number), &annotations, &["--net-host"], None, script)
    }

    /// Starts a container beside the sandbox of a pod that is there; it has the pod's resolv.conf.
    ///
    /// # Errors
    /// containerd refuses.
    pub fn run_container(&self, number: u32, name: &str, script: &str) -> Result<()> {
        let resolv_conf = self.resolv_conf_of(number);
        let resolv_conf = resolv_conf.is_file().then_some(resolv_conf);
        let annotations = [("container-type", "container"), ("container-name", name)];
        let network = format!("network:/proc/{}/ns/net", self.pid_of_pod(number)?);
        let id = id_of_container(number, name);
        self.run_in_pod(number, &id, &annotations, &["--with-ns", &network], resolv_conf.as_deref(), script)
    }

    /// Ends a container of a pod.
    ///
    /// # Errors
    /// containerd refuses.
    pub fn remove_container(&self, number: u32, name: &str) -> Result<()> {
        let id = id_of_container(number, name);
        self.sh(&format!("{CTR} task rm --force {id} >/dev/null; {CTR} container rm {id}"))?;
        Ok(())
    }

    /// The address that CNI gave a pod.
    ///
    /// # Errors
    /// It has none.
    pub fn address_of_pod(&self, number: u32) -> Result<String> {
        let id = id_of(number);
        let file = self.sh(&format!("cd /var/lib/cni/networks/lab; grep -l {id} 10.*"))?;
        Ok(file.trim().to_owned())
    }

    /// The first process of a pod's sandbox.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid_of_pod(&self, number: u32) -> Result<u32> {
        let (tasks, id) = (self.sh(&format!("{CTR} task ls"))?, id_of(number));
        let line = tasks.lines().find_map(|line| line.strip_prefix(&id)).context("the pod does not run")?;
        line.split_whitespace().next().and_then(|pid| pid.parse().ok()).context("the pod has no process")
    }

    /// Answers every query on the node.
    ///
    /// # Errors
    /// As [`Responder::start`].
    pub fn answer(&self) -> Result<Responder> {
        Responder::start_in(&Path::new("/run/netns").join(&self.name))
    }

    /// Answers every query at the gateway with NXDOMAIN.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn answer_no_such_name(&self) -> Result<Process> {
        self.no_such_name_server(self.command("python3"), GATEWAY)
    }

    /// The same in the network of a pod, at its address.
    ///
    /// # Errors
    /// The pod does not run, or the server cannot be started.
    pub fn answer_no_such_name_in_pod(&self, number: u32) -> Result<Process> {
        let mut command = self.command("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid_of_pod(number)?)).arg("python3");
        self.no_such_name_server(command, &self.address_of_pod(number)?)
    }

    fn no_such_name_server(&self, mut python: Command, address: &str) -> Result<Process> {
        python.args(["-c", SERVER, address]);
        let log = self.files.path().join(format!("server-{address}.log"));
        Process::spawn_with_stdout("server", &mut python, Stdio::null(), &log)
    }

    fn resolv_conf_of(&self, number: u32) -> PathBuf {
        self.files.path().join(format!("{}.resolv.conf", pod_name(number)))
    }

    fn run_in_pod(
        &self,
        number: u32,
        id: &str,
        annotations: &[(&str, &str)],
        network: &[&str],
        resolv_conf: Option<&Path>,
        script: &str,
    ) -> Result<()> {
        let (sandbox, name) = (id_of(number), pod_name(number));
        let of_pod = [("sandbox-id", &*sandbox), ("sandbox-name", &name), ("sandbox-namespace", "shop")];
        let mut command = self.command("ctr");
        // A shim may wait for good for the other end of the container's standard input, so it gets none.
        command.args(CTR.split(' ').skip(1)).args(["run", "--detach", "--null-io", "--rootfs"]).args(network);
        // The first file system of a virtual machine cannot be left as others are (pivot_root(2)).
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
        command.args(mounts.lines().any(|line| line.starts_with("rootfs / ")).then_some("--no-pivot"));
        for (key, value) in annotations.iter().chain(&of_pod) {
            command.arg("--annotation").arg(format!("io.kubernetes.cri.{key}={value}"));
        }
        command
            .args(resolv_conf.into_iter().flat_map(|file| {
                let mount = format!("type=bind,src={},dst=/etc/resolv.conf,options=rbind:ro", file.display());
                ["--mount".to_owned(), mount]
            }))
            .arg("--cgroup")
            .arg(format!("/kubepods/burstable/pod0f3e2b5a-9a7b-4f5c-8c31-{number:012x}/{id}"))
            .arg(self.files.path().join("rootfs"))
            .arg(id)
            .args(["/bin/sh", "-c", script]);
        run(&mut command, LIMIT)?;
        Ok(())
    }

    /// Ends a pod, and gives its address back: what the kubelet asks CNI for, and `ctr` does not.
    ///
    /// # Errors
    /// containerd refuses.
    pub fn remove_pod(&self, number: u32) -> Result<()> {
        let id = id_of(number);
        self.sh(&format!(
            "{CTR} task rm --force {id} >/dev/null; {CTR} container rm {id}
             cd /var/lib/cni/networks/lab; rm -f $(grep -l {id} 10.*)"
        ))?;
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // What remains of the pods goes with their cgroups; nobody is told where that fails.
        let _ = self.sh("ctr task ls -q | xargs -r -n1 ctr task rm --force; ctr container ls -q | xargs -r ctr container rm");
        let _ = self.process.stop(rustix::process::Signal::TERM, LIMIT);
        for directory in &self.made {
            let _ = fs::remove_dir(directory);
        }
        let _ = run(bound_command("ip").args(["netns", "del", &self.name]), LIMIT);
        let _ = run(
            bound_command("find")
                .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", "*/kubepods*", "-empty"])
                .args(["-exec", "rmdir", "{}", "+"]),
            LIMIT,
        );
    }
}

fn id_of(number: u32) -> String {
    format!("{number:064x}")
}

/// As long as [`id_of`], by the letters of the name.
fn id_of_container(number: u32, name: &str) -> String {
    let letters: String = name.bytes().map(|letter| format!("{letter:02x}")).collect();
    format!("{letters:0<48}{number:016x}")
}

/// What pod number `number` is called: always as many characters.
pub fn pod_name(number: u32) -> String {
    format!("pod-{number:03}")
}

/// A line of shell that asks the gateway for `NAME.example`, about twice a second.
pub fn asking(number: u32) -> String {
    format!("while :; do nslookup {}.example {GATEWAY}; sleep 0.5; done >/dev/null 2>&1", pod_name(number))
}

/// The resolv.conf that the kubelet makes for a pod of the namespace `shop`, with this nameserver.
pub fn cluster_resolv_conf(nameserver: &str) -> String {
    format!(
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver {nameserver}\noptions ndots:5\n"
    )
}
