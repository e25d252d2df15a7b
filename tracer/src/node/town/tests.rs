//! Each test is an order of events on a busy node. The letters of pods, addresses and interfaces are the same: pod `a` has
//! the address 10.0.0.1 where nothing else is said.

use super::super::{processes::Processes, roots::Roots};
use super::*;
use std::os::unix::fs::symlink;

const ADDRESS: &str = "10.0.0.1";

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn pod(name: &str) -> PodName {
    PodName { namespace: "shop".into(), name: name.into() }
}

fn link(index: u32, name: &str) -> Link {
    Link::made_up(index, name)
}

fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

/// A look that shows these processes, each in the namespace of this inode.
fn look(processes: &[(u32, u64)]) -> Look {
    let tree = tempfile::tempdir().unwrap();
    for (pid, inode) in processes {
        let ns = tree.path().join(format!("proc/{pid}/ns"));
        std::fs::create_dir_all(&ns).unwrap();
        symlink(format!("net:[{inode}]"), ns.join("net")).unwrap();
    }
    let mut look = Look::default();
    look.processes = Processes::list(&Roots::at(tree.path()), &[]);
    look
}

struct Story {
    pods: Pods,
    town: Town,
}

impl Story {
    fn new() -> Self {
        let pods = Pods::new();
        Self { town: Town::new(pods.clone(), std::iter::once(pod("node")), at(0)), pods }
    }

    /// What one listing after `time` shows: interfaces by the number they lead to.
    fn listed(&mut self, time: u64, all: &[(i32, &[Link])]) {
        let peers = all.iter().map(|(number, links)| (*number, links.iter().cloned().collect())).collect();
        self.town.meet(0, peers, at(time));
    }

    /// A neighbour is found to be this pod, in the namespace of this inode.
    fn found(&mut self, number: i32, inode: u64, name: &str) {
        self.town.found((0, number), inode, Path::new("/"), Naming::Named(pod(name)));
    }

    fn addressed(&mut self, number: i32, list: &[&str], time: u64) {
        self.town.addressed((0, number), addresses(list), at(time));
    }

    fn tell(&mut self, time: u64) {
        self.town.tell(false, at(time));
    }

    /// The whole of a look at one neighbour and nobody else.
    fn met(&mut self, time: u64, number: i32, link: &Link, name: &str) {
        self.listed(time, &[(number, std::slice::from_ref(link))]);
        self.found(number, u64::from(link.index), name);
        self.addressed(number, &[ADDRESS], time);
        self.tell(time);
    }

    fn gone(&mut self, link: &Link, time: u64) -> bool {
        self.town.gone(0, link, at(time))
    }

    /// Who had [`ADDRESS`] in each second from 0 on; `-`: nobody.
    fn owners(&self, seconds: u64) -> String {
        let address = ADDRESS.parse().unwrap();
        let name = |second| self.pods.name_at(address, at(second)).map_or("-".into(), |pod| pod.name.clone());
        (0..seconds).map(name).collect()
    }
}

#[test]
fn an_address_is_a_pods_from_its_interface_to_the_end_of_that() {
    let mut story = Story::new();
    let a = link(5, "a");
    story.town.came(0, 5, at(2));
    // It changes, as one that is set up does.
    story.town.came(0, 5, at(3));
    story.met(4, 1, &a, "a");
    assert!(!story.gone(&a, 6), "nobody waits for the address");
    story.listed(7, &[]);
    story.tell(7);
    assert_eq!(story.owners(9), "--aaaaa--");
}

/// What was seen in half of the runs of 200 pods: interfaces are listed in several answers. The first has a's with its
/// number; then a goes, and b comes and is given a's number; the second answer has b's.
#[test]
fn one_who_joins_under_the_number_of_another_is_not_that_one() {
    for is_torn_first in [true, false] {
        let mut story = Story::new();
        let (a, b) = (link(5, "a"), link(6, "b"));
        story.met(1, 1, &a, "a");
        story.town.came(0, 6, at(4));
        if is_torn_first {
            story.listed(5, &[(1, &[a.clone(), b.clone()])]);
            story.gone(&a, 5);
        } else {
            story.gone(&a, 5);
            story.listed(5, &[(1, &[a.clone(), b.clone()])]);
        }
        // The look goes on, and finds who has the number now.
        story.addressed(1, &[ADDRESS], 5);
        story.tell(6);
        let until = if is_torn_first { "-aaaa----" } else { "-aaaaa---" };
        assert_eq!(story.owners(9), until);
        story.listed(7, &[(1, std::slice::from_ref(&b))]);
        assert!(story.town.neighbours().any(|(_, neighbour)| neighbour.is_unsettled(false, at(7))));
        story.found(1, 6, "b");
        story.addressed(1, &[ADDRESS], 7);
        story.tell(7);
        assert_eq!(&story.owners(9)[7..], "bb");
        assert_eq!(&story.owners(9)[..5], "-aaaa");
    }
}

/// As above, but nothing goes or comes at all: a pod that is given a second interface in the watched namespace.
#[test]
fn a_second_interface_of_a_pod_is_looked_at_and_then_its_own() {
    let mut story = Story::new();
    let (a, second) = (link(5, "a"), link(6, "second"));
    story.met(1, 1, &a, "a");
    story.town.came(0, 6, at(4));
    story.listed(5, &[(1, &[a.clone(), second.clone()])]);
    story.found(1, 5, "a");
    story.addressed(1, &[ADDRESS], 5);
    story.tell(5);
    assert_eq!(story.owners(7), "-aaaaaa");
    // With one of two it stays.
    assert!(!story.gone(&a, 6));
    story.listed(7, &[(1, std::slice::from_ref(&second))]);
    story.tell(7);
    assert_eq!(story.owners(9), "-aaaaaaaa");
}

#[test]
fn a_number_that_is_used_again_is_another_neighbour() {
    let mut story = Story::new();
    let (a, b) = (link(5, "a"), link(6, "b"));
    story.met(1, 1, &a, "a");
    // The news that a went are still on their way.
    story.town.came(0, 6, at(3));
    story.listed(4, &[(1, std::slice::from_ref(&b))]);
    story.addressed(1, &[ADDRESS], 4);
    story.tell(4);
    assert!(!story.owners(9)[4..].contains('a'), "{}", story.owners(9));
    story.gone(&a, 4);
    story.met(5, 1, &b, "b");
    assert_eq!(story.owners(8), "-aaabbbb");
}

/// A plugin makes a veth in the pod and moves it: where its index is free on the node, it keeps it.
#[test]
fn an_index_that_is_used_again_is_another_interface() {
    let mut story = Story::new();
    let (a, b) = (link(3, "a"), link(3, "b"));
    story.met(1, 1, &a, "a");
    // Neither that a went nor that b came has been heard of.
    story.listed(4, &[(1, std::slice::from_ref(&b))]);
    story.addressed(1, &[ADDRESS], 4);
    story.tell(4);
    assert!(!story.owners(9)[5..].contains('a'), "{}", story.owners(9));
    story.found(1, 7, "b");
    story.tell(5);
    // Now it is: and it is not b that went.
    story.gone(&a, 5);
    story.tell(6);
    assert_eq!(&story.owners(9)[5..], "bbbb");
}

/// A node whose processors are all taken: the kernel has not yet taken a down when b has its address.
#[test]
fn an_address_that_two_have_is_nobodys_since_the_second_one_came() {
    let mut story = Story::new();
    let (a, b) = (link(5, "a"), link(6, "b"));
    story.met(1, 1, &a, "a");
    story.town.came(0, 6, at(3));
    let both = [(1, std::slice::from_ref(&a)), (2, std::slice::from_ref(&b))];
    story.listed(4, &both);
    story.found(2, 6, "b");
    story.addressed(2, &[ADDRESS], 4);
    story.tell(4);
    assert_eq!(story.owners(6), "-aaa--");
    assert!(story.town.is_contested() && story.town.pause(at(60)) <= CONTESTED);
    assert!(story.gone(&a, 6), "b waits for the address");
    story.tell(7);
    assert_eq!(story.owners(9), "-aaa---bb");
}

/// The same, where a's processes could be seen, and have ended.
#[test]
fn who_left_a_namespace_that_is_still_there_has_no_address_any_more() {
    let mut story = Story::new();
    let (a, b) = (link(5, "a"), link(6, "b"));
    story.met(1, 1, &a, "a");
    story.town.inhabited(&look(&[(100, 5)]));
    story.tell(1);
    story.town.came(0, 6, at(3));
    let both = [(1, std::slice::from_ref(&a)), (2, std::slice::from_ref(&b))];
    story.listed(4, &both);
    story.found(2, 6, "b");
    story.addressed(2, &[ADDRESS], 4);
    // a's process is still there.
    story.town.inhabited(&look(&[(100, 5), (200, 6)]));
    story.tell(4);
    assert_eq!(story.owners(6), "-aaa--");
    story.town.inhabited(&look(&[(200, 6)]));
    story.tell(5);
    assert_eq!(story.owners(7), "-aaa-bb");
    story.gone(&a, 6);
    story.listed(7, &both[1..]);
    story.tell(7);
    assert_eq!(story.owners(9), "-aaa-bbbb");
}

/// Without access to processes nobody is taken to have left.
#[test]
fn who_never_had_a_process_that_was_seen_has_not_left() {
    let mut story = Story::new();
    let (a, b) = (link(5, "a"), link(6, "b"));
    story.met(1, 1, &a, "a");
    story.town.inhabited(&look(&[]));
    story.listed(4, &[(1, std::slice::from_ref(&a)), (2, std::slice::from_ref(&b))]);
    story.found(2, 6, "b");
    story.addressed(2, &[ADDRESS], 4);
    story.tell(5);
    assert!(story.town.is_contested());
    assert!(!story.owners(9).contains('b'));
}

/// A pod that is being made at a look at all: its process is there, and its interface is not listed yet.
#[test]
fn a_pod_elsewhere_that_an_interface_leads_to_is_elsewhere_no_more() {
    let mut story = Story::new();
    let (a, b) = (link(5, "a"), link(6, "b"));
    story.town.elsewhere(vec![(5, Naming::Named(pod("a")), addresses(&[ADDRESS]))]);
    story.town.tell(true, at(1));
    story.listed(2, &[(1, std::slice::from_ref(&a))]);
    story.tell(2);
    assert!(!story.owners(9)[4..].contains('b'));
    story.met(3, 1, &a, "a");
    story.town.forget_elsewhere(&look(&[(100, 5)]));
    story.tell(3);
    story.gone(&a, 4);
    story.tell(5);
    assert!(!story.owners(9)[5..].contains('a'), "{}", story.owners(9));
    story.town.came(0, 6, at(6));
    story.met(7, 1, &b, "b");
    assert_eq!(&story.owners(9)[5..], "-bbb");
}

/// As before, but its end comes before the next look at processes.
#[test]
fn a_pod_elsewhere_goes_with_the_interface_that_had_its_address() {
    let mut story = Story::new();
    let a = link(5, "a");
    story.town.elsewhere(vec![(5, Naming::Named(pod("a")), addresses(&[ADDRESS]))]);
    story.town.tell(true, at(1));
    story.met(3, 1, &a, "a");
    story.gone(&a, 4);
    story.tell(5);
    assert!(!story.owners(9)[5..].contains('a'), "{}", story.owners(9));
}

/// As before, but it ends before its interface was met.
#[test]
fn a_pod_elsewhere_that_ends_is_forgotten_at_the_next_look() {
    let mut story = Story::new();
    story.town.elsewhere(vec![(5, Naming::Named(pod("a")), addresses(&[ADDRESS]))]);
    story.town.tell(true, at(1));
    story.town.forget_elsewhere(&look(&[(200, 6)]));
    story.tell(3);
    assert!(!story.owners(9)[4..].contains('a'));
    // Its interface, by the time that the kernel tells of it, is nobody's.
    assert!(!story.gone(&link(5, "a"), 4));
}

#[test]
fn what_a_pod_is_given_later_is_its_own_since_the_look_before() {
    let mut story = Story::new();
    let (a, b) = (link(5, "a"), link(6, "b"));
    story.listed(1, &[(1, std::slice::from_ref(&a)), (2, std::slice::from_ref(&b))]);
    story.found(1, 5, "a");
    story.found(2, 6, "b");
    story.addressed(1, &[ADDRESS], 1);
    story.addressed(2, &["10.0.0.2"], 1);
    story.tell(1);
    story.addressed(1, &[], 3);
    story.tell(3);
    story.addressed(2, &["10.0.0.2"], 5);
    story.addressed(2, &["10.0.0.2", ADDRESS], 7);
    story.tell(7);
    assert_eq!(story.owners(9), "-aaa-bbbb");
}

/// Indexes and their times are kept for interfaces that lead to somebody alone.
#[test]
fn what_is_remembered_of_interfaces_does_not_grow() {
    let mut story = Story::new();
    for index in 0..1_000_u32 {
        let (own, pods) = (index * 2, link(index * 2 + 1, "pod"));
        let time = u64::from(index) * 10;
        story.town.came(0, own, at(time));
        story.town.came(0, pods.index, at(time));
        story.met(time + 1, 1, &pods, &format!("pod-{index}"));
        // Of every second one it is not told that it went.
        if index % 2 == 0 {
            story.gone(&pods, time + 5);
        }
    }
    let Town { neighbours, births, elsewhere, .. } = &story.town;
    assert!(neighbours.len() <= 1 && births.len() <= 4 && elsewhere.is_empty(), "{births:?}");
    story.town.lost_news();
    assert!(story.town.births.is_empty());
}

#[test]
fn who_is_young_or_has_no_name_is_looked_at_soon() {
    let mut story = Story::new();
    assert_eq!(story.town.pause(at(0)), RESYNC);
    let a = link(5, "a");
    story.town.came(0, 5, at(10));
    story.listed(10, &[(1, std::slice::from_ref(&a))]);
    assert_eq!(story.town.pause(at(10)), SOON);
    story.met(10, 1, &a, "a");
    // Its second address may still be coming.
    assert_eq!(story.town.pause(at(10)), SOON);
    assert_eq!(story.town.to_be_asked(false, at(12)), [(0, 1)]);
    assert_eq!((story.town.pause(at(14)), story.town.to_be_asked(false, at(14))), (RESYNC, vec![]));
    assert_eq!(story.town.to_be_asked(true, at(14)), [(0, 1)]);
}

/// A plugin that runs in another pod's container, in a namespace that is being made.
#[test]
fn a_guess_is_looked_at_again() {
    let mut story = Story::new();
    let a = link(5, "a");
    story.listed(1, &[(1, std::slice::from_ref(&a))]);
    story.town.found((0, 1), 5, Path::new("/"), Naming::Guessed(pod("p")));
    story.addressed(1, &[ADDRESS], 1);
    story.tell(1);
    let is_unsettled = |story: &Story, all, time| {
        story.town.neighbours().all(|(_, neighbour)| neighbour.is_unsettled(all, at(time)))
    };
    assert!(
        is_unsettled(&story, false, 2) && is_unsettled(&story, true, 9) && !is_unsettled(&story, false, 9)
    );
    story.found(1, 5, "a");
    story.tell(2);
    assert!(!is_unsettled(&story, true, 2));
    assert_eq!(&story.owners(5)[2..], "aaa");
}
