//! Trees of state files as the runtimes leave them, below `tests/fixtures/node`: each has a file `expected` with the
//! inode of each namespace and whose it is; `-` for nobody knows, `?` for sources that disagree.

use super::*;
use std::path::Path;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/node")
}

/// A line as in `expected`.
fn told(inode: u64, naming: &Naming) -> String {
    match naming {
        Naming::Named(name) | Naming::Guessed(name) => format!("{inode} {name}\n"),
        Naming::Ambiguous => format!("{inode} ?\n"),
        Naming::Unknown => format!("{inode} -\n"),
    }
}

#[test]
fn every_runtime_is_read_right_and_what_is_broken_names_nobody() {
    let mut trees = 0;
    for tree in fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()) {
        let expected = fs::read_to_string(tree.join("expected")).unwrap();
        let mut namer = Namer::new(Roots::at(&tree));
        let look = namer.look(&[4_026_531_840], Timestamp::EPOCH);
        let mut inodes: Vec<u64> = look.processes.namespaces().collect();
        inodes.sort_unstable();
        let found: String = inodes.iter().map(|&inode| told(inode, &namer.name(inode, &look))).collect();
        assert_eq!(found, expected, "{}", tree.display());
        trees += 1;
    }
    assert_eq!(trees, 10);
}

#[test]
fn containers_have_names_of_their_own() {
    let mut namer = Namer::new(Roots::at(fixtures().join("k3s")));
    let look = namer.look(&[], Timestamp::EPOCH);
    let containers = namer.containers(4_026_532_201, &look);
    let shown: Vec<_> = containers.iter().map(|(_, c)| (c.name.as_str(), c.sandbox)).collect();
    assert_eq!(shown, [("", true), ("app", false)]);
    assert!(look.containers.is_empty(), "listed without being followed");
    namer.follow(Arrivals::new().unwrap());
    let look = namer.look(&[], Timestamp::EPOCH);
    let listed: Vec<_> =
        look.containers.values().flatten().map(|it| (it.name.as_str(), it.made.is_some())).collect();
    assert_eq!(listed, [("app", true); 2]);
}

/// Docker writes its file of a container again and again: what it says of the container's making stays.
#[test]
fn dockers_containers_have_the_time_they_were_made() {
    let mut namer = Namer::new(Roots::at(fixtures().join("cri-dockerd")));
    namer.follow(Arrivals::new().unwrap());
    let look = namer.look(&[], Timestamp::EPOCH);
    let made: Vec<_> = look.containers.values().flatten().map(|container| container.made).collect();
    // 2026-11-20T12:00:00Z.
    assert!(!made.is_empty());
    assert!(
        made.iter().all(|made| *made == Some(Timestamp::from_nanos(1_795_176_000_000_000_000))),
        "{made:?}"
    );
}

#[test]
fn names_that_runtimes_make_up() {
    for name in [
        "cni-5f9c0d5e-14a2-6f0b-4f53-0a4b4c7f6f10",
        "netns-5f9c0d5e-14a2-6f0b-4f53-0a4b4c7f6f10",
        "5f9c0d5e-14a2-6f0b-4f53-0a4b4c7f6f10",
    ] {
        assert!(is_made_up(name), "{name}");
    }
    for name in ["node", "lab-7-web", "cni-0", "deadbeef-web"] {
        assert!(!is_made_up(name), "{name}");
    }
}
