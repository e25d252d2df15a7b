//! Nothing stays behind: however dnspath ends and whatever comes and goes meanwhile, its programs, maps, links,
//! filters and qdiscs are those it needs, and afterwards none.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnspath_tests::clock::{now, wait_until};
use dnspath_tests::harness::{Outcome, run};
use dnspath_tests::process::{Process, bound_command, run as run_command};
use dnspath_tests::query::{Qtype, query};
use dnspath_tests::requirements::{find, kernel_has_tcx};
use dnspath_tests::topology::VIP4;
use dnspath_tests::tracer::{Tracer, binary};
use dnspath_tests::{Client, Lab, LabOptions, Namespace, Pod};
use rustix::process::Signal;
use serde_json::Value;

fn main() -> ExitCode {
    run(&[
        ("interrupted", || signalled(Signal::INT, Some(0))),
        ("terminated", || signalled(Signal::TERM, Some(0))),
        ("hung_up", || signalled(Signal::HUP, Some(0))),
        ("killed", || signalled(Signal::KILL, None)),
        ("by_clsact_interrupted", by_clsact_interrupted),
        ("by_clsact_killed_and_started_again", by_clsact_killed_and_started_again),
        ("interrupted_twice", interrupted_twice),
        ("at_the_end_of_its_time", at_the_end_of_its_time),
        ("when_nobody_reads_any_more", when_nobody_reads_any_more),
        ("when_the_disk_is_full", when_the_disk_is_full),
        ("refused_before_it_is_ready", refused_before_it_is_ready),
        ("two_at_once_do_not_touch_each_other", two_at_once_do_not_touch_each_other),
        ("links_come_and_go", links_come_and_go),
        ("a_pod_comes_back_under_its_name", a_pod_comes_back_under_its_name),
    ])
}

/// How many clsact qdiscs and filters of dnspath there are in the lab's node.
fn clsact(lab: &Lab) -> Result<(usize, usize)> {
    let script = "tc qdisc show; for dev in $(ls /sys/class/net); do \
                  tc filter show dev $dev ingress; tc filter show dev $dev egress; done";
    let shown = lab.node().script(script)?;
    Ok((
        shown.lines().filter(|line| line.starts_with("qdisc clsact")).count(),
        shown.lines().filter(|line| line.contains("dnspath_")).count(),
    ))
}

fn by_clsact_interrupted() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let tracer = Tracer::stream(lab.node(), &["--hook", "clsact"])?;
    let (qdiscs, filters) = clsact(&lab)?;
    ensure!(qdiscs > 3 && filters == 2 * qdiscs, "{qdiscs} qdiscs, {filters} filters while it runs");
    tracer.finish()?;
    ensure!(clsact(&lab)? == (0, 0), "left behind: {:?}", clsact(&lab)?);
    Ok(Outcome::Measured(format!("{qdiscs} qdiscs, {filters} filters, then none")))
}

/// A filter belongs to the interface, not to the process: what is left is the next one's to take away.
fn by_clsact_killed_and_started_again() -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let lab = Lab::new(LabOptions { server: None, ..LabOptions::default() })?;
    let mut killed = Tracer::stream(lab.node(), &["--hook", "clsact"])?;
    killed.process().signal(Signal::KILL)?;
    killed.process().wait(Duration::from_secs(5))?;
    let left = clsact(&lab)?;
    ensure!(left.0 > 3 && left.1 == 2 * left.0, "{left:?} left by the killed one");
    let next = Tracer::stream(lab.node(), &["--hook", "clsact"])?;
    ensure!(clsact(&lab)? == left, "{:?} while the next one runs", clsact(&lab)?);
    // One that lives keeps what is its own.
    let beside = Tracer::stream(lab.node(), &["--hook", "clsact"])?;
    ensure!(clsact(&lab)? == (left.0, 2 * left.1), "{:?} while two run", clsact(&lab)?);
    beside.finish()?;
    ensure!(clsact(&lab)? == left, "{:?} when one of two has ended", clsact(&lab)?);
    next.finish()?;
    ensure!(clsact(&lab)? == (0, 0), "left behind: {:?}", clsact(&lab)?);
    // One that uses tcx takes away what was left, too.
    let mut killed = Tracer::stream(lab.node(), &["--hook", "clsact"])?;
    killed.process().signal(Signal::KILL)?;
    killed.process().wait(Duration::from_secs(5))?;
    ensure!(clsact(&lab)? == left, "{:?} left by the second killed one", clsact(&lab)?);
    Tracer::stream(lab.node(), &["--hook", "auto"])?.finish()?;
    ensure!(clsact(&lab)? == (0, 0), "left behind by the default hook: {:?}", clsact(&lab)?);
    Ok(Outcome::Measured(format!("{} filters left by a kill, none after the next start", left.1)))
}

/// Ids of what a process holds in the kernel, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    programs: BTreeSet<u64>,
    maps: BTreeSet<u64>,
    links: BTreeSet<u64>,
    /// Those of the links that hook packets at an interface.
    hooks: BTreeSet<u64>,
}

impl Held {
    /// What the process `pid` holds now, by its file descriptors.
    fn by(pid: u32) -> Result<Self> {
        let mut held = Self::default();
        let directory = format!("/proc/{pid}/fdinfo");
        for entry in std::fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
            let path = entry.context("cannot list descriptors")?.path();
            // One that was closed since is not held.
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            let field = |name: &str| {
                text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
            };
            // A link tells its program too.
            if let Some(link) = field("link_id:") {
                held.links.insert(link);
                if text.lines().any(|line| line.starts_with("link_type:") && line.ends_with("tcx")) {
                    held.hooks.insert(link);
                }
            } else if let Some(program) = field("prog_id:") {
                held.programs.insert(program);
            } else if let Some(map) = field("map_id:") {
                held.maps.insert(map);
            }
        }
        Ok(held)
    }

    /// What of it the kernel still has.
    fn remains(&self) -> Result<Vec<String>> {
        let mut remains = Vec::new();
        for (kind, ids) in [("prog", &self.programs), ("map", &self.maps), ("link", &self.links)] {
            let mut command = Command::new("bpftool");
            command.args(["-j", kind, "show"]);
            let output = run_command(&mut command, Duration::from_secs(20))?;
            let all: Value = serde_json::from_slice(&output.stdout).context("bpftool prints no JSON")?;
            let there = all.as_array().into_iter().flatten().filter_map(|one| one["id"].as_u64());
            remains.extend(there.filter(|id| ids.contains(id)).map(|id| format!("{kind} {id}")));
        }
        Ok(remains)
    }
}

/// Checks that nothing of what was held is left, and no filter or qdisc of the classifiers in any of `namespaces`.
fn nothing_left(held: &Held, namespaces: &[&Namespace]) -> Result<()> {
    // The kernel frees links and programs after a grace period.
    let mut remains = Vec::new();
    wait_until(Duration::from_secs(5), || match held.remains() {
        Ok(found) => {
            remains = found;
            remains.is_empty()
        }
        Err(_) => false,
    });
    ensure!(remains.is_empty(), "left in the kernel: {remains:?}");
    held.remains()?;
    for namespace in namespaces {
        let qdiscs = namespace.run("tc", &["qdisc", "show"])?;
        ensure!(!qdiscs.contains("clsact"), "a qdisc is left: {qdiscs}");
        let net = namespace.run("bpftool", &["net", "show"])?;
        ensure!(!net.contains("dnspath"), "a filter is left: {net}");
    }
    Ok(())
}

fn why_not() -> Option<String> {
    if let Err(reason) = binary() {
        return Some(format!("{reason:#}"));
    }
    if find("bpftool").is_none() {
        return Some("bpftool is missing (package bpftool)".to_owned());
    }
    let without_tcx =
        || "this kernel has no tcx links to count: by_clsact tells about its filters".to_owned();
    (!kernel_has_tcx().unwrap_or(true)).then(without_tcx)
}

fn quiet_lab() -> Result<Lab> {
    Lab::new(LabOptions { server: None, ..LabOptions::default() })
}

/// How many interfaces of `namespace` are watched: all but the loopback.
fn interfaces(namespace: &Namespace) -> Result<usize> {
    Ok(namespace.run("ip", &["-o", "link", "show"])?.lines().filter(|line| !line.contains(" lo:")).count())
}

/// What is held at the moment the ready file is there: all of it.
fn held_when_ready(tracer: &mut Tracer, node: &Namespace) -> Result<Held> {
    let held = Held::by(tracer.process().pid())?;
    let links = 2 * interfaces(node)?;
    ensure!(held.hooks.len() == links, "ready with {} links of {links}", held.hooks.len());
    // Four classifiers and the drop probe; where there are kprobes, the two of conntrack.
    ensure!(matches!(held.programs.len(), 5 | 7), "ready with the programs {:?}", held.programs);
    ensure!(held.remains()?.len() >= links + 4, "bpftool does not show what is held");
    Ok(held)
}

/// Asks the service, where nobody answers.
fn ask(pod: &Pod, id: u16) -> Result<()> {
    let socket = pod.namespace.udp_socket(pod.ip4, 0)?;
    socket
        .send_to(&query(id, &format!("exits{id}.example.com"), Qtype::A), SocketAddr::from((VIP4, 53)))
        .context("cannot send a query")?;
    Ok(())
}

fn is_told(tracer: &Tracer, id: u16) -> bool {
    tracer.lines().is_ok_and(|lines| lines.iter().any(|line| line["unit"] == "message" && line["id"] == id))
}

fn signalled(signal: Signal, code: Option<i32>) -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab()?;
    let mut tracer = Tracer::stream(lab.node(), &["--unit", "message"])?;
    let held = held_when_ready(&mut tracer, lab.node())?;
    ask(lab.pod("web")?, 7)?;
    ensure!(wait_until(Duration::from_secs(3), || is_told(&tracer, 7)), "the query was not told");
    let start = now();
    let status = tracer.process().stop(signal, Duration::from_secs(10))?;
    let took = start.elapsed();
    ensure!(status.code() == code, "it ended with {status}");
    nothing_left(&held, &[lab.node()])?;
    let log = tracer.log()?;
    ensure!(!log.contains("panicked"), "it panicked: {log}");
    ensure!(code.is_none() || log.contains("coverage: frames="), "no coverage told: {log}");
    tracer.lines()?;
    Ok(Outcome::Measured(format!("{} links, gone in {} ms", held.links.len(), took.as_millis())))
}

fn interrupted_twice() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab()?;
    let mut tracer = Tracer::stream(lab.node(), &["--unit", "message"])?;
    let held = held_when_ready(&mut tracer, lab.node())?;
    tracer.process().signal(Signal::INT)?;
    // While it detaches.
    sleep(Duration::from_millis(30));
    let status = tracer.process().stop(Signal::INT, Duration::from_secs(10))?;
    ensure!(matches!(status.code(), Some(0 | 130)), "it ended with {status}");
    nothing_left(&held, &[lab.node()])?;
    Ok(Outcome::Measured(format!("{status}")))
}

fn at_the_end_of_its_time() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab()?;
    let node = lab.node().name();
    for arguments in [
        &["stream", "-o", "json", "--netns", node, "--duration", "1s"][..],
        &["report", "--netns", node, "--duration", "1s", "--fail-on", "error"],
        &["live", "--netns", node, "--duration", "1s"],
    ] {
        let mut tracer = Tracer::start(lab.directory(), arguments)?;
        let held = held_when_ready(&mut tracer, lab.node())?;
        let start = now();
        ensure!(
            wait_until(Duration::from_secs(10), || !tracer.process().is_running()),
            "it runs after its end"
        );
        let took = start.elapsed();
        ensure!(took > Duration::from_millis(500), "it ended after {took:?}");
        let status = tracer.process().stop(Signal::TERM, Duration::from_secs(1))?;
        ensure!(status.code() == Some(0), "{arguments:?} ended with {status}: {}", tracer.log()?);
        nothing_left(&held, &[lab.node()])?;
    }
    Ok(Outcome::Passed)
}

/// Starts dnspath with a pipe for its standard output.
fn piped(lab: &Lab, arguments: &[&str], ready: &Path) -> Result<std::process::Child> {
    let mut command = bound_command(binary()?);
    command.args(arguments).args(["--netns", lab.node().name(), "--ready-file"]).arg(ready);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start dnspath")?;
    if !wait_until(Duration::from_secs(15), || ready.exists()) {
        // Gone already: it did not get ready for a reason of its own.
        let _ = child.kill();
        anyhow::bail!("dnspath {arguments:?} did not get ready");
    }
    Ok(child)
}

fn when_nobody_reads_any_more() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab()?;
    let web = lab.pod("web")?;
    for (number, arguments) in
        [&["stream", "--unit", "message"][..], &["stream", "-o", "json", "--unit", "message"], &["live"]]
            .into_iter()
            .enumerate()
    {
        let ready = lab.directory().join(format!("ready{number}"));
        let mut child = piped(&lab, arguments, &ready)?;
        let held = Held::by(child.id())?;
        ensure!(!held.links.is_empty(), "nothing is attached");
        ask(web, 1)?;
        // What `head -1` does. A lookup is told once it is over, which is soon where the service refuses.
        let mut pipe = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut line = String::new();
        pipe.read_line(&mut line).context("cannot read a line")?;
        ensure!(line.contains("exits1.example.com"), "told: {line}");
        drop(pipe);
        let mut status: Option<ExitStatus> = None;
        let start = now();
        let mut id = 1;
        wait_until(Duration::from_secs(20), || {
            id += 1;
            // What cannot be sent is not needed.
            let _ = ask(web, id);
            sleep(Duration::from_millis(100));
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        let took = start.elapsed();
        let Some(status) = status else {
            let _ = child.kill();
            anyhow::bail!("{arguments:?} runs on without a reader");
        };
        let output = child.wait_with_output().context("cannot read its words")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(status.code() == Some(0), "{arguments:?} ended with {status} after {took:?}: {said}");
        ensure!(!said.contains("panicked"), "it panicked: {said}");
        nothing_left(&held, &[lab.node()])?;
    }
    Ok(Outcome::Passed)
}

fn when_the_disk_is_full() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab()?;
    let (ready, log) = (lab.directory().join("full.ready"), lab.directory().join("full.log"));
    let mut command = bound_command(binary()?);
    command.args(["stream", "--unit", "message", "--netns", lab.node().name(), "--ready-file"]).arg(&ready);
    let full = File::options().write(true).open("/dev/full").context("cannot open /dev/full")?;
    let mut process = Process::spawn_with_stdout("dnspath", &mut command, full.into(), &log)?;
    ensure!(wait_until(Duration::from_secs(15), || ready.exists()), "not ready: {}", process.log()?);
    let held = Held::by(process.pid())?;
    let mut id = 0;
    let ended = wait_until(Duration::from_secs(10), || {
        id += 1;
        // What cannot be sent is not needed.
        let _ = lab.pod("web").and_then(|web| ask(web, id));
        sleep(Duration::from_millis(100));
        !process.is_running()
    });
    ensure!(ended, "it runs on: {}", process.log()?);
    let status = process.stop(Signal::TERM, Duration::from_secs(1))?;
    let said = process.log()?;
    // What cannot be seen on this machine was said before.
    let errors: Vec<&str> = said.lines().filter(|line| !line.contains("(DP902)")).collect();
    ensure!(status.code() == Some(2) && errors.len() == 1, "it ended with {status}: {said}");
    ensure!(
        errors[0].starts_with("dnspath: cannot print to stdout") && errors[0].contains("No space left"),
        "{said}"
    );
    nothing_left(&held, &[lab.node()])?;
    Ok(Outcome::Passed)
}

fn refused_before_it_is_ready() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab()?;
    // The second namespace is refused after the first is attached.
    let arguments = ["stream", "--netns", lab.node().name(), "nosuch"];
    let error = Tracer::start(lab.directory(), &arguments).err().context("it got ready")?;
    ensure!(error.to_string().contains("nosuch"), "it said {error:#}");
    ensure!(!lab.directory().join("dnspath.ready").exists(), "the ready file is there");
    let net = lab.node().run("tc", &["qdisc", "show"])?;
    ensure!(!net.contains("clsact"), "a qdisc is left: {net}");
    Ok(Outcome::Passed)
}

fn two_at_once_do_not_touch_each_other() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let lab = quiet_lab()?;
    let arguments = ["stream", "-o", "json", "--unit", "message", "--netns", lab.node().name()];
    let directories = ["first", "second"].map(|name| lab.directory().join(name));
    for directory in &directories {
        std::fs::create_dir_all(directory).context("cannot make a directory")?;
    }
    let [first_directory, second_directory] = &directories;
    let mut first = Tracer::start(first_directory, &arguments)?;
    let mut second = Tracer::start(second_directory, &arguments)?;
    let (held_first, held_second) =
        (held_when_ready(&mut first, lab.node())?, held_when_ready(&mut second, lab.node())?);
    first.process().stop(Signal::KILL, Duration::from_secs(5))?;
    nothing_left(&held_first, &[])?;
    ensure!(Held::by(second.process().pid())? == held_second, "the second lost something");
    ask(lab.pod("web")?, 9)?;
    ensure!(wait_until(Duration::from_secs(3), || is_told(&second, 9)), "the second tells nothing any more");
    second.finish()?;
    nothing_left(&held_second, &[lab.node()])?;
    Ok(Outcome::Passed)
}

/// 250 links of ten at a time, as pods come and go; their other ends are beyond the node.
const CHURN: &str = r#"
for round in $(seq 25); do
  for n in 1 2 3 4 5 6 7 8 9 10; do
    echo "link add name churn$round.$n type veth peer name far$round.$n netns $1"
    echo "link set churn$round.$n up"
  done | ip -batch - || exit 1
  sleep 0.2
  for n in 1 2 3 4 5 6 7 8 9 10; do echo "link delete churn$round.$n"; done | ip -batch - || exit 1
done
echo done
"#;

fn links_come_and_go() -> Result<Outcome> {
    if let Some(reason) = why_not().or_else(|| Client::Glibc.available().err().map(|e| format!("{e:#}"))) {
        return Ok(Outcome::LeftOut(reason));
    }
    let mut lab = Lab::new(LabOptions::default())?;
    let mut tracer = Tracer::stream(lab.node(), &["--unit", "message", "--unit", "question"])?;
    let pid = tracer.process().pid();
    let before = held_when_ready(&mut tracer, lab.node())?;
    let mut traffic =
        Client::Glibc.command(lab.pod("web")?, &["-n", "100000", "-w", "5", "payments.shop"])?;
    let mut traffic = Process::spawn("traffic", &mut traffic, &lab.directory().join("traffic.log"))?;
    let mut churn = lab.node().command("sh");
    churn.args(["-c", CHURN, "churn", lab.fabric().name()]);
    let mut churn = Process::spawn("churn", &mut churn, &lab.directory().join("churn.log"))?;
    // In the middle of it.
    sleep(Duration::from_secs(2));
    let mut slowest = Duration::ZERO;
    let output = lab.node().files().join("dnspath.out");
    for name in ["late1", "late2", "late3"] {
        let pod = lab.add_pod(name)?;
        let up = now();
        let vantage = format!("{} ingress\"", pod.veth);
        let mut id = 0;
        let told = wait_until(Duration::from_secs(5), || {
            id += 1;
            let _ = ask(pod, id);
            sleep(Duration::from_millis(20));
            std::fs::read_to_string(&output).is_ok_and(|text| text.contains(&vantage))
        });
        let took = up.elapsed();
        ensure!(
            told && took < Duration::from_secs(1),
            "{name} was told after {took:?} (told: {told}); {id} queries sent, seen at {:?}; {}",
            seen_at(&tracer, &pod.ip4.to_string())?,
            tracer.log()?
        );
        slowest = slowest.max(took);
    }
    ensure!(churn.is_running(), "the churn was over before: {}", churn.log()?);
    ensure!(wait_until(Duration::from_secs(60), || !churn.is_running()), "the churn does not end");
    ensure!(churn.log()?.contains("done"), "the churn failed: {}", churn.log()?);
    let counts = |held: &Held| (held.programs.len(), held.maps.len(), held.links.len());
    let (programs, maps, links) = counts(&before);
    let settles = |expected: (usize, usize, usize)| -> Result<()> {
        let mut found = Held::default();
        wait_until(Duration::from_secs(10), || {
            Held::by(pid).is_ok_and(|held| {
                found = held;
                counts(&found) == expected
            })
        });
        ensure!(counts(&found) == expected, "{:?} programs, maps, links, not {expected:?}", counts(&found));
        Ok(())
    };
    settles((programs, maps, links + 6))?;
    for name in ["late1", "late2", "late3"] {
        lab.remove_pod(name)?;
    }
    settles((programs, maps, links))?;
    ensure!(traffic.is_running(), "the traffic ended: {}", traffic.log()?);
    traffic.stop(Signal::KILL, Duration::from_secs(5))?;
    let log = tracer.log()?;
    let held = Held::by(pid)?;
    let told = tracer.finish()?;
    nothing_left(&held, &[lab.node()])?;
    ensure!(!log.contains("cannot attach") && !log.contains("panicked"), "it complained: {log}");
    ensure!(told.covered("lost")? == 0, "frames lost: {:?}", told.coverage);
    let unanswered = told
        .unit("question")
        .filter(|line| line["client"] == lab_web(&lab) && line["outcome"] != "answered")
        .count();
    ensure!(unanswered <= 2, "{unanswered} questions of the traffic told as unanswered");
    Ok(Outcome::Measured(format!(
        "a new pod is told {} ms after its link is up; {:?}",
        slowest.as_millis(),
        told.coverage
    )))
}

fn a_pod_comes_back_under_its_name() -> Result<Outcome> {
    if let Some(reason) = why_not() {
        return Ok(Outcome::LeftOut(reason));
    }
    let mut lab = quiet_lab()?;
    let mut tracer = Tracer::stream(lab.node(), &["--unit", "message", "-i", "veth*"])?;
    let pid = tracer.process().pid();
    let before = Held::by(pid)?;
    for id in 1..=3_u16 {
        if id > 1 {
            lab.remove_pod("web")?;
            lab.add_pod("web")?;
        }
        let all = wait_until(Duration::from_secs(3), || {
            Held::by(pid).is_ok_and(|held| held.links.len() == before.links.len())
        });
        ensure!(all, "{} links, not {}", Held::by(pid)?.links.len(), before.links.len());
        ask(lab.pod("web")?, id)?;
        ensure!(wait_until(Duration::from_secs(3), || is_told(&tracer, id)), "pod {id} is not told");
        let address = lab.pod("web")?.ip4.to_string();
        let seen = seen_at(&tracer, &address)?;
        ensure!(seen.contains("veth-web ingress"), "pod {id} was seen at {seen:?}");
    }
    let held = Held::by(pid)?;
    tracer.finish()?;
    nothing_left(&held, &[lab.node()])?;
    Ok(Outcome::Passed)
}

/// Where messages of a client were seen.
fn seen_at(tracer: &Tracer, client: &str) -> Result<BTreeSet<String>> {
    let lines = tracer.lines()?;
    let of_client =
        lines.iter().filter(|line| line["client"].as_str().is_some_and(|c| c.starts_with(client)));
    let hops = of_client.filter_map(|line| line["hops"].as_array()).flatten();
    Ok(hops.filter_map(|hop| hop["vantage"].as_str()).map(str::to_owned).collect())
}

/// The address of the pod that makes the traffic.
fn lab_web(lab: &Lab) -> Value {
    lab.pod("web").map_or(Value::Null, |pod| Value::from(pod.ip4.to_string()))
}
