//! Pods on cgroup v2, as the systemd and the cgroupfs driver name their cgroups. The processes, their cgroups and mounts
//! are real; what a runtime writes down of its containers (containerd's bundles) is written by hand.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::Lab;
use dnspath_tests::harness::Outcome;
use dnspath_tests::process::{Process, bound_command, run};
use dnspath_tests::query::{Qtype, ask, query};
use dnspath_tests::topology::UPSTREAM4;
use dnspath_tests::tracer::Tracer;
use serde_json::{Value, json};

use crate::OF_VIRTUAL_MACHINES;
use crate::stage::on_quiet_stage;

const CGROUPS: &str = "/sys/fs/cgroup";
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

struct Pod {
    /// What the lab calls it.
    in_lab: &'static str,
    name: &'static str,
    cgroup: &'static str,
    id: &'static str,
    /// Its search suffix, which no other pod has.
    suffix: &'static str,
}

const PODS: [Pod; 2] = [
    Pod {
        in_lab: "web",
        name: "web-systemd",
        cgroup: "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f3e2b5a_9a7b_4f5c_8c31_1f6f1f0d0a11.slice/cri-containerd-7c6f54b2a2b1f3b1f30e6a6fd6a3fb1c3dbe4d3a6e4e0d2e0b6f9a1f7f0a9e55.scope",
        id: "7c6f54b2a2b1f3b1f30e6a6fd6a3fb1c3dbe4d3a6e4e0d2e0b6f9a1f7f0a9e55",
        suffix: "one.two.example",
    },
    Pod {
        in_lab: "db",
        name: "db-cgroupfs",
        cgroup: "kubepods/besteffort/pod1f3e2b5a-9a7b-4f5c-8c31-1f6f1f0d0a12/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        id: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        suffix: "example",
    },
];

/// Both pods ask this: what of it is the name is told by their search lists alone.
const ASKED: &str = "api.one.two.example";
const ROUNDS: u16 = 10;
/// By then dnspath has looked around, even under emulation.
const KNOWN_AFTER: usize = 6;

impl Pod {
    /// A process in the pod's network, with a resolv.conf and a cgroup of its own.
    fn start(&self, lab: &Lab) -> Result<Process> {
        let namespace = &lab.pod(self.in_lab)?.namespace;
        // `ip netns exec` mounts this over /etc/resolv.conf.
        let files = Path::new("/etc/netns").join(namespace.name());
        fs::create_dir_all(&files).context("cannot make a folder for resolv.conf")?;
        let resolv_conf = format!("search {}\nnameserver {UPSTREAM4}\noptions ndots:5\n", self.suffix);
        fs::write(files.join("resolv.conf"), resolv_conf).context("cannot write resolv.conf")?;
        let annotations = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": "app",
            "io.kubernetes.cri.sandbox-id": "f".repeat(64),
            "io.kubernetes.cri.sandbox-name": self.name,
            "io.kubernetes.cri.sandbox-namespace": "shop",
        });
        let bundle = Path::new(BUNDLES).join(self.id);
        fs::create_dir_all(&bundle).context("cannot make a bundle")?;
        fs::write(bundle.join("config.json"), json!({ "annotations": annotations }).to_string())
            .context("cannot write a bundle")?;
        let mut command = bound_command("ip");
        command.args(["netns", "exec", namespace.name(), "sleep", "600"]);
        let process = Process::spawn(self.name, &mut command, &namespace.files().join("pod.log"))?;
        let cgroup = Path::new(CGROUPS).join(self.cgroup);
        fs::create_dir_all(&cgroup).context("cannot make a cgroup")?;
        fs::write(cgroup.join("cgroup.procs"), process.pid().to_string())
            .with_context(|| format!("cannot move a process into {}", cgroup.display()))?;
        Ok(process)
    }

    fn ask(&self, lab: &Lab, id: u16) -> Result<()> {
        let pod = lab.pod(self.in_lab)?;
        let socket = pod.namespace.udp_socket(pod.ip4, 0)?;
        let server = (IpAddr::from(UPSTREAM4), 53).into();
        ask(&socket, server, &query(id, ASKED, Qtype::A), Duration::from_secs(5))?.context("no answer")?;
        Ok(())
    }

    /// How many of its lookups carry its name, after checking them all.
    fn judge(&self, lab: &Lab, lookups: &[&Value]) -> Result<usize> {
        let address = lab.pod(self.in_lab)?.ip4.to_string();
        let own: Vec<_> = lookups.iter().filter(|line| line["client"] == address.as_str()).collect();
        ensure!(own.len() == usize::from(ROUNDS), "{} lookups of {}: {own:?}", own.len(), self.name);
        let base = ASKED.strip_suffix(self.suffix).unwrap_or(ASKED).trim_end_matches('.');
        let pod = format!("shop/{}", self.name);
        for line in own.iter().skip(KNOWN_AFTER) {
            ensure!(line["pod"] == pod.as_str(), "not of {pod}: {line}");
            ensure!(line["k8s.container.name"] == "app", "not of its container: {line}");
            ensure!(line["name"] == base, "not read by the search list of {pod}: {line}");
        }
        let named = own.iter().filter(|line| line["k8s.pod.name"] == self.name).count();
        let others = own.iter().filter(|line| !line["k8s.pod.name"].is_null()).count();
        ensure!(named == others, "the name of another: {own:?}");
        Ok(named)
    }
}

pub(crate) fn on_cgroup_v2() -> Result<Outcome> {
    if !Path::new(OF_VIRTUAL_MACHINES).is_file() {
        return Ok(Outcome::LeftOut(
            "the machine's own cgroups and runtimes stay as they are (cargo xtask vm-test mounts cgroup v2)"
                .to_owned(),
        ));
    }
    on_quiet_stage(|stage| {
        run(bound_command("mount").args(["-t", "cgroup2", "none", CGROUPS]), Duration::from_secs(10))?;
        let lab = &stage.lab;
        let processes = PODS.iter().map(|pod| pod.start(lab)).collect::<Result<Vec<_>>>()?;
        for process in &processes {
            let of_process = fs::read_to_string(format!("/proc/{}/cgroup", process.pid()))?;
            ensure!(of_process.starts_with("0::/kubepods"), "not on cgroup v2: {of_process}");
        }
        let tracer = Tracer::stream(lab.node(), &["--unit", "lookup", "-i", "veth-web", "-i", "veth-db"])?;
        for round in 0..ROUNDS {
            for (number, pod) in (0_u16..).zip(&PODS) {
                pod.ask(lab, 0x2000 + 2 * round + number)?;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        let told = tracer.finish()?;
        let lookups: Vec<&Value> = told.unit("lookup").collect();
        let mut named = 0;
        for pod in &PODS {
            named += pod.judge(lab, &lookups)?;
        }
        drop(processes);
        Ok(Outcome::Measured(format!("{named} of {} lookups named", lookups.len())))
    })
}
