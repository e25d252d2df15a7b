//! What is written is what is read, and stays the same when it is written again.

use super::{MergedReader, Note, Origin, Reader, Recorded, Statistics, Told, Writer};
use crate::model::{
    Conntrack, Direction, DropMark, Fate, Flow, Frame, InterfaceKind, Libc, LinkType, NatTuple, News,
    PodName, Pods, Resolver, Service, Timestamp, Vantage, VantageId, Vantages,
};
use proptest::prelude::*;
use std::{io::Write as _, path::Path, sync::Arc};

fn origin() -> Origin {
    Origin {
        version: "0.1.0".into(),
        node: "node-7 (x86_64)".into(),
        kernel: "Linux 6.18.44 #1 SMP".into(),
        sources: vec!["netns blue".into(), "netns green".into()],
        facts: vec!["clock 2026-11-20T12:00:00.000000000Z at monotonic 81 ns".into(), "hook tcx".into()],
    }
}

/// Frames of a session without their frame: what differs between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    vantage: usize,
    time: u64,
    bytes: Vec<u8>,
    more: u32,
    segment_size: u16,
    nat: Option<NatTuple>,
    mark: Option<(Fate, u32, String, String)>,
}

impl Sample {
    fn frame(&self, number: u64, ids: &[VantageId]) -> Frame<'_> {
        let drop = self.mark.as_ref().map(|(fate, cpu, reason, place)| DropMark {
            fate: *fate,
            cpu: *cpu,
            reason,
            place,
        });
        Frame {
            number,
            time: Timestamp::from_nanos(self.time),
            vantage: ids[self.vantage],
            link: if drop.is_some() { LinkType::RawIp } else { LinkType::Ethernet },
            original_len: self.bytes.len() as u32 + self.more,
            bytes: &self.bytes,
            segment_size: self.segment_size,
            nat: self.nat,
            drop,
        }
    }
}

fn vantage(index: usize) -> Vantage {
    let directions = [Direction::Ingress, Direction::Egress, Direction::Unknown];
    Vantage {
        interface: format!("veth{index}"),
        ifindex: index as u32 + 4,
        direction: directions[index % 3],
        kind: if index == 0 { InterfaceKind::Uplink } else { InterfaceKind::Veth },
        netns: (index == 2).then(|| "blue box".into()),
        source: 0,
    }
}

fn samples() -> Vec<Sample> {
    let flow = |a: &str, b: &str| Flow { source: a.parse().unwrap(), destination: b.parse().unwrap() };
    let nat = NatTuple {
        original: flow("10.0.0.1:4000", "10.96.0.10:53"),
        reply: flow("10.1.0.5:53", "10.0.0.1:4000"),
    };
    let plain = Sample {
        vantage: 0,
        time: 5,
        bytes: b"one".to_vec(),
        more: 0,
        segment_size: 0,
        nat: None,
        mark: None,
    };
    let mark = (Fate::InsertFailed, 1, "NETFILTER_DROP".into(), "__nf_conntrack_confirm".into());
    vec![
        plain.clone(),
        Sample { vantage: 1, time: 1_800_000_000_123_456_789, nat: Some(nat), more: 7, ..plain.clone() },
        Sample { vantage: 2, bytes: b"four".to_vec(), segment_size: 512, ..plain.clone() },
        Sample { vantage: 2, bytes: vec![], nat: Some(nat), mark: Some(mark.clone()), ..plain.clone() },
        Sample { vantage: 0, mark: Some((Fate::ClashResolved, 0, String::new(), String::new())), ..plain },
    ]
}

fn pods(names: &[(&str, &str, &str)]) -> Pods {
    let pods = Pods::new();
    for (address, namespace, name) in names {
        pods.tell(
            address.parse().unwrap(),
            PodName { namespace: (*namespace).into(), name: (*name).into() },
            Timestamp::EPOCH,
        );
    }
    pods
}

/// With everything that could end a line, a part or a comment before its time.
fn resolver() -> Arc<Resolver> {
    Arc::new(Resolver {
        pod: PodName { namespace: "shop".into(), name: "web-2".into() },
        container: "a; pod \u{1b}".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        resolv_conf: "nameserver 10.96.0.10\nsearch a.example; b\\n\0\u{202e}\u{fffd}\r\n".into(),
        environment: "options ndots:2\n".into(),
        libc: Libc::Glibc,
        agrees: true,
        has_server: false,
    })
}

/// What the file tells of the node, to its end.
fn told(path: &Path) -> Vec<Told> {
    let (mut reader, vantages) = (Reader::open(path, 0).unwrap(), Vantages::new());
    while reader.next_frame(&vantages).unwrap().is_some() {}
    reader.take_told()
}

fn names(path: &Path) -> Pods {
    let names = Pods::new();
    told(path).iter().for_each(|told| names.heed(&told.news));
    names
}

fn statistics(ids: &[VantageId], ended: bool) -> Statistics {
    Statistics {
        started: Timestamp::from_nanos(1_700_000_000_000_000_001),
        until: Timestamp::from_nanos(1_700_000_009_000_000_002),
        lost: vec![(Some(ids[1]), 7), (None, 2), (Some(ids[0]), 1)],
        conntrack: Some(Conntrack { insert_failed: 3, entries: 70, max: 262_144, ..Conntrack::default() }),
        ended,
    }
}

/// A recording with some of everything.
fn recording(samples: &[Sample]) -> Vec<u8> {
    let vantages = Vantages::new();
    let ids: Vec<_> = (0..3).map(|index| vantages.intern(vantage(index))).collect();
    let mut writer = Writer::new(Vec::new(), &origin()).unwrap();
    let pods = pods(&[
        ("10.0.0.1", "shop", "web-1"),
        ("fd00::5", "kube-system", "coredns-x"),
        ("10.0.0.2", "", "node-7"),
    ]);
    let mut seen = 0;
    writer.news(None, &pods.news(&mut seen)).unwrap();
    for (sample, number) in samples.iter().zip(1..) {
        writer.frame(&sample.frame(number, &ids), &vantages).unwrap();
        if number == 2 {
            let address = "10.0.0.1".parse().unwrap();
            pods.end(address, Timestamp::from_nanos(1_700_000_000_100_000_000));
            pods.tell(
                address,
                PodName { namespace: "shop".into(), name: "web-2".into() },
                Timestamp::from_nanos(1_700_000_000_200_000_000),
            );
            let time = Timestamp::from_nanos(1_700_000_000_400_000_000);
            let pod = pods.name(address).unwrap();
            pods.tell_container(&pod, Some("app"), time);
            let mut news = pods.news(&mut seen);
            news.extend([News::Resolver(resolver(), time), News::Resolver(Arc::default(), time)]);
            writer.news(Some(time), &news).unwrap();
            writer.statistics(&statistics(&ids, false), &vantages).unwrap();
        }
    }
    writer.statistics(&statistics(&ids, true), &vantages).unwrap();
    assert_eq!(writer.frames(), samples.len() as u64);
    let octets = writer.octets();
    let file = writer.finish().unwrap();
    assert_eq!(file.len() as u64, octets);
    file
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Number, time, vantage, link, lengths, octets and note of each frame, as text: notes borrow from the reader.
fn frames(path: &Path) -> (Vec<String>, Reader) {
    let (mut reader, vantages) = (Reader::open(path, 0).unwrap(), Vantages::new());
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame(&vantages).unwrap() {
        frames.push(shown(&frame, &vantages));
    }
    (frames, reader)
}

fn shown(frame: &Frame<'_>, vantages: &Vantages) -> String {
    let vantage = vantages.lookup(frame.vantage).unwrap();
    format!(
        "{} {} {vantage:?} {:?} {} {:?} {:?}",
        frame.number,
        frame.time,
        frame.link,
        frame.original_len,
        frame.bytes,
        Note::of(frame)
    )
}

fn expected(samples: &[Sample]) -> Vec<String> {
    let vantages = Vantages::new();
    let ids: Vec<_> = (0..3).map(|index| vantages.intern(vantage(index))).collect();
    samples.iter().zip(1..).map(|(sample, number)| shown(&sample.frame(number, &ids), &vantages)).collect()
}

/// Reads a recording and writes it again, each thing where it was.
fn written_again(path: &Path) -> Vec<u8> {
    let vantages = Vantages::new();
    let mut reader = Reader::open(path, 0).unwrap();
    let mut writer: Option<Writer<Vec<u8>>> = None;
    let mut lost = 0;
    loop {
        let is_over = reader.next_frame(&vantages).unwrap().is_none();
        let (recorded, losses) = (reader.recorded(), reader.lost_by_vantage(&vantages));
        let origin = reader.origin().unwrap().clone();
        let writer = writer.get_or_insert_with(|| Writer::new(Vec::new(), &origin).unwrap());
        for told in reader.take_told().chunk_by(|one, other| one.at == other.at) {
            let news: Vec<_> = told.iter().map(|told| told.news.clone()).collect();
            writer.news(told[0].at, &news).unwrap();
        }
        if let Some(Recorded { started, until, ended, conntrack }) = recorded
            && (reader.lost() != lost || is_over)
        {
            lost = reader.lost();
            let counted = Statistics { started, until, ended, conntrack, lost: losses };
            writer.statistics(&counted, &vantages).unwrap();
        }
        match reader.loaded() {
            Some(record) => writer.frame(&record.frame, &vantages).unwrap(),
            None => break,
        }
    }
    writer.unwrap().finish().unwrap()
}

#[test]
fn what_is_written_is_read() {
    let samples = samples();
    let file = written(&recording(&samples));
    let (frames, reader) = frames(file.path());
    assert_eq!(frames, expected(&samples));
    assert_eq!(reader.origin(), Some(&origin()));
    assert_eq!(reader.sources(), ["netns blue", "netns green"]);
    assert_eq!((reader.lost(), reader.cut()), (10, false));
    let Statistics { started, until, conntrack, .. } = statistics(&[VantageId(0), VantageId(1)], true);
    assert_eq!(reader.recorded(), Some(Recorded { started, until, ended: true, conntrack }));
    let names = names(file.path());
    for (address, name) in
        [("10.0.0.1", "shop/web-2"), ("fd00::5", "kube-system/coredns-x"), ("10.0.0.2", "node-7")]
    {
        assert_eq!(names.name(address.parse().unwrap()).unwrap().to_string(), name);
    }
    let (address, time) = ("10.0.0.1".parse().unwrap(), Timestamp::from_nanos(1_700_000_000_400_000_000));
    let gone = Timestamp::from_nanos(1_700_000_000_100_000_000);
    assert_eq!(names.name_at(address, gone).unwrap().name, "web-1");
    assert_eq!(names.name_at(address, time).unwrap().name, "web-2");
    assert_eq!(names.container_at(address, time).as_deref(), Some("app"));
    assert_eq!(names.container_at(address, gone), None);
    let told = told(file.path());
    let at: Vec<_> = told.iter().map(|told| told.at).collect();
    assert_eq!(at, [[None; 3].as_slice(), &[Some(time); 5]].concat());
    let resolvers: Vec<_> = told[6..].iter().map(|told| told.news.clone()).collect();
    assert_eq!(resolvers, [News::Resolver(resolver(), time), News::Resolver(Arc::default(), time)]);
}

#[test]
fn what_is_told_of_the_node_comes_at_its_place() {
    let samples = samples();
    let file = written(&recording(&samples));
    let mut reader = MergedReader::open(&[file.path(), file.path()]).unwrap();
    let vantages = Vantages::new();
    let mut counts = Vec::new();
    while reader.next_time(&vantages).unwrap().is_some() {
        let told = reader.take_told().len();
        let number = reader.next_frame(&vantages).unwrap().unwrap().number;
        counts.extend((told > 0).then_some((number, told)));
    }
    counts.sort_unstable();
    assert_eq!(counts.iter().map(|(_, told)| told).sum::<usize>() + reader.take_told().len(), 16);
    assert!(
        counts.iter().all(|(number, told)| [(1, 3), (1, 6), (3, 5), (3, 10)].contains(&(*number, *told)))
    );
}

#[test]
fn what_is_read_is_written_again_octet_by_octet() {
    let recording = recording(&samples());
    assert!(written_again(written(&recording).path()) == recording);
}

#[test]
fn a_recording_cut_anywhere_gives_what_is_before_the_cut() {
    let recording = recording(&samples());
    let (whole, _) = frames(written(&recording).path());
    let zstd = {
        // As the recorder writes it: what is flushed can be read though the stream does not end.
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        for piece in recording.chunks(400) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    };
    for bytes in [&recording, &zstd] {
        let mut most = 0;
        for length in 4..bytes.len() {
            let (frames, _) = frames(written(&bytes[..length]).path());
            assert_eq!(frames[..], whole[..frames.len()], "cut at {length}");
            assert!(frames.len() >= most, "cut at {length}");
            most = frames.len();
        }
        // What is behind the last frame are statistics.
        assert_eq!(most, whole.len());
    }
}

#[test]
fn recordings_behind_each_other_are_one() {
    let samples = samples();
    let file = written(&recording(&samples).repeat(2));
    let (frames, reader) = frames(file.path());
    assert_eq!(frames.len(), 2 * samples.len());
    assert_eq!((reader.lost(), reader.sources().len()), (20, 2));
    assert_eq!(
        reader.recorded().and_then(|all| all.conntrack).map(|counts| (counts.insert_failed, counts.entries)),
        Some((6, 70))
    );
}

#[test]
fn a_session_without_frames_tells_its_time_and_losses() {
    let vantages = Vantages::new();
    let ids: Vec<_> = (0..2).map(|index| vantages.intern(vantage(index))).collect();
    let mut writer = Writer::new(Vec::new(), &origin()).unwrap();
    writer.statistics(&statistics(&ids, true), &vantages).unwrap();
    let file = written(&writer.finish().unwrap());
    let (frames, reader) = frames(file.path());
    assert!(frames.is_empty());
    assert_eq!(reader.lost(), 10);
    assert!(reader.recorded().is_some_and(|recorded| recorded.ended));
}

#[test]
fn names_of_hosts_that_others_wrote_are_no_pods() {
    let foreign = Origin { version: "x".into(), ..Origin::default() };
    let told = pods(&[("10.0.0.1", "", "host.example"), ("10.0.0.2", "shop", "web-1")]);
    for (own, expected) in [(true, [true, true]), (false, [false, true])] {
        let mut writer = Writer::new(Vec::new(), &foreign).unwrap();
        let vantages = Vantages::new();
        let ids: Vec<_> = (0..2).map(|index| vantages.intern(vantage(index))).collect();
        writer.news(None, &told.news(&mut 0)).unwrap();
        writer.statistics(&statistics(&ids, true), &vantages).unwrap();
        let mut bytes = writer.finish().unwrap();
        if !own {
            // Another program's name in `shb_userappl`.
            let at = bytes.windows(7).position(|word| word == b"dnspath").unwrap();
            bytes[at] = b'D';
        }
        let file = written(&bytes);
        let known = ["10.0.0.1", "10.0.0.2"].map(|ip| names(file.path()).name(ip.parse().unwrap()).is_some());
        assert_eq!(known, expected);
    }
}

#[test]
fn hostile_strings_are_bounded_and_escaped() {
    let long = "\u{1b}[31m\n\0".repeat(50_000);
    let hostile = Origin {
        version: long.clone(),
        node: long.clone(),
        kernel: long.clone(),
        sources: vec![long.clone()],
        facts: vec![long.clone(); 500],
    };
    let vantages = Vantages::new();
    let id =
        vantages.intern(Vantage { interface: long.clone(), netns: Some(long.clone()), ..Vantage::default() });
    let pod = PodName { namespace: long.clone(), name: long.clone() };
    let resolver = Resolver {
        pod: pod.clone(),
        resolv_conf: long.clone(),
        environment: long.clone(),
        ..Resolver::default()
    };
    let time = Timestamp::from_nanos(1);
    let news = [
        News::Named("10.0.0.1".parse().unwrap(), Arc::new(pod), time),
        News::Resolver(Arc::new(resolver), time),
    ];
    let sample =
        Sample { mark: Some((Fate::Dropped, 1, long.clone(), long)), vantage: 0, ..samples()[0].clone() };
    let mut writer = Writer::new(Vec::new(), &hostile).unwrap();
    writer.news(Some(time), &news).unwrap();
    writer.frame(&sample.frame(1, &[id]), &vantages).unwrap();
    let bytes = writer.finish().unwrap();
    assert!(bytes.len() < 150_000, "{} octets", bytes.len());
    assert!(!bytes.contains(&0x1b));
    let file = written(&bytes);
    let (frames, reader) = frames(file.path());
    assert_eq!(frames.len(), 1);
    assert!(!format!("{frames:?}{:?}", reader.origin()).contains('\x1b'));
    assert!(written_again(file.path()) == bytes);
}

#[test]
fn a_service_is_read_back_and_its_address_is_no_pods() {
    let vantages = Vantages::new();
    let id = vantages.intern(Vantage { interface: "cni0".into(), ..Vantage::default() });
    let service = |name: &str| Service {
        address: "10.96.0.10:53".parse().unwrap(),
        name: name.into(),
        backends: ["10.244.0.2:53".parse().unwrap()].into(),
    };
    let time = Timestamp::from_nanos(1);
    let news = |name: &str| News::Service(Arc::new(service(name)), time);
    let all = [news("kube-system/kube-dns:dns"), news(""), news("a/\x1b[2J")];
    let mut writer = Writer::new(Vec::new(), &origin()).unwrap();
    writer.news(Some(time), &all).unwrap();
    writer.frame(&samples()[0].frame(1, &[id]), &vantages).unwrap();
    let bytes = writer.finish().unwrap();
    assert!(!bytes.contains(&0x1b));
    let record = b"kube-system/kube-dns\0";
    assert!(bytes.windows(record.len()).any(|some| some == record), "no name for other programs");
    let file = written(&bytes);
    let told: Vec<News> = told(file.path()).into_iter().map(|told| told.news).collect();
    assert_eq!(told, all);
    assert!(written_again(file.path()) == bytes);
}

prop_compose! {
    fn any_sample()(
        vantage in 0..3_usize,
        time: u64,
        bytes in proptest::collection::vec(any::<u8>(), 0..90),
        more in 0..9_000_u32,
        segment_size: u16,
        addresses: Option<[std::net::SocketAddr; 4]>,
        mark in proptest::option::of((any::<u32>(), "[A-Z_0-9]{0,20}", "[a-z_0-9.]{0,20}")),
    ) -> Sample {
        let nat = addresses.map(|[a, b, c, d]| NatTuple {
            original: Flow { source: a, destination: b },
            reply: Flow { source: c, destination: d },
        });
        let mark = mark.map(|(cpu, reason, place)| (Fate::TableFull, cpu, reason, place));
        Sample { vantage, time, bytes, more, segment_size, nat, mark }
    }
}

proptest! {
    #[test]
    fn any_frames_are_read_as_written(samples in proptest::collection::vec(any_sample(), 0..20)) {
        let bytes = recording(&samples);
        let file = written(&bytes);
        let (frames, _) = frames(file.path());
        prop_assert_eq!(frames, expected(&samples));
    }

    #[test]
    fn a_flipped_octet_of_a_recording_never_panics(position: usize, value: u8) {
        let mut bytes = recording(&samples());
        let position = position % bytes.len();
        bytes[position] = value;
        let file = written(&bytes);
        let vantages = Vantages::new();
        if let Ok(mut reader) = Reader::open(file.path(), 0) {
            while let Ok(Some(_)) = reader.next_frame(&vantages) {}
            let _ = (reader.recorded(), reader.sources(), reader.lost());
        }
    }
}

/// The recording of this version that is kept, put together by hand after the format's draft: what it says is read
/// for good, by whichever version comes.
fn kept() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/recordings/dnspath-0.1.0.pcapng")
}

#[test]
fn the_kept_recording_is_read_and_written_as_it_is() {
    let (frames, reader) = frames(&kept());
    let vantages = ["veth-web", "veth-dns2", "veth-web", "cni0", "veth-dns2", "veth-web"];
    assert_eq!(frames.len(), vantages.len());
    for (frame, vantage) in frames.iter().zip(vantages) {
        assert!(frame.contains(vantage), "{frame}");
    }
    assert!(
        frames[3].contains("cpu: 1, reason: \"NETFILTER_DROP\", place: \"__nf_conntrack_confirm\""),
        "{}",
        frames[3]
    );
    assert!(frames[5].contains("direction: Egress, kind: Veth"), "{}", frames[5]);
    assert_eq!((reader.lost(), reader.cut()), (3, false));
    assert_eq!(reader.sources(), ["node node-7"]);
    assert_eq!(reader.origin().map(|origin| origin.version.as_str()), Some("0.1.0"));
    let recorded = reader.recorded().unwrap();
    assert_eq!(recorded.until.since(recorded.started).as_secs(), 10);
    let expected = Conntrack {
        insert_failed: 1,
        clash_resolve: 2,
        drop: 1,
        found: 4,
        entries: 70,
        max: 262_144,
        ..Conntrack::default()
    };
    assert_eq!(recorded.conntrack, Some(expected));
    for (address, name) in [
        ("10.244.1.5", "shop/web-7c9f"),
        ("fd00:244:1::5", "shop/web-7c9f"),
        ("10.96.0.10", "kube-system/kube-dns"),
    ] {
        assert_eq!(names(&kept()).name(address.parse().unwrap()).unwrap().to_string(), name);
    }
    assert!(written_again(&kept()) == std::fs::read(kept()).unwrap());
}
