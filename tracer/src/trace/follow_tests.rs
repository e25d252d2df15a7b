//! What following gives of files that grow, shrink and go away.

use super::{
    MergedReader, Reader, TraceError,
    samples::{Order, gzip, zstd},
    tail::Pipe,
};
use crate::model::Vantages;
use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

fn pcap() -> Vec<u8> {
    Order::Little.pcap(0xa1b2_c3d4, 1, &[(1, 0, b"one"), (2, 0, b"two"), (3, 0, b"three")])
}

fn pcapng() -> Vec<u8> {
    let order = Order::Big;
    [
        order.section(),
        order.interface(1, &[]),
        order.packet(0, 1, b"one", &[]),
        order.packet(0, 2, b"two", &[(1, b"said")]),
        order.packet(0, 3, b"three", &[]),
    ]
    .concat()
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Frames until there is none; the reader must then say that it waits.
fn all_now(reader: &mut Reader, vantages: &Vantages) -> Vec<(u64, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame(vantages).unwrap() {
        frames.push((frame.number, frame.bytes.to_vec()));
    }
    assert!(reader.waiting() && !reader.cut());
    frames
}

#[test]
fn a_file_that_grows_anywhere_gives_every_frame_once() {
    let expected = [(1, b"one".to_vec()), (2, b"two".to_vec()), (3, b"three".to_vec())];
    for (what, bytes) in
        [("pcap", pcap()), ("pcapng", pcapng()), ("gzip", gzip(&pcapng())), ("zstd", zstd(&pcap()))]
    {
        for cut in 0..=bytes.len() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("capture");
            fs::write(&path, &bytes[..cut]).unwrap();
            let vantages = Vantages::new();
            let mut frames = Vec::new();
            let mut reader = match Reader::follow(&path, 0) {
                Ok(mut reader) => {
                    frames = all_now(&mut reader, &vantages);
                    append(&path, &bytes[cut..]);
                    reader
                }
                Err(TraceError::Empty { .. }) => {
                    append(&path, &bytes[cut..]);
                    Reader::follow(&path, 0).unwrap()
                }
                Err(error) => panic!("{what} cut at {cut}: {error}"),
            };
            frames.extend(all_now(&mut reader, &vantages));
            assert_eq!(frames, expected, "{what} cut at {cut}");
        }
    }
}

#[test]
fn what_happens_to_a_followed_file_is_told_behind_its_last_frame() {
    type Change = fn(&Path);
    let cases: [(Change, &str); 3] = [
        (|path| fs::write(path, b"").unwrap(), "truncated"),
        (|path| fs::rename(path, path.with_extension("1")).unwrap(), "removed or renamed"),
        (
            |path| {
                fs::write(path.with_extension("new"), pcap()).unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            },
            "replaced by another file",
        ),
    ];
    for (change, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("capture");
        fs::write(&path, pcap()).unwrap();
        let vantages = Vantages::new();
        let mut reader = Reader::follow(&path, 0).unwrap();
        assert_eq!(all_now(&mut reader, &vantages).len(), 3);
        change(&path);
        let error = reader.next_frame(&vantages).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!reader.waiting());
    }
}

#[test]
fn of_several_files_the_one_that_waits_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let [early, late] = ["early", "late"].map(|name| directory.path().join(name));
    fs::write(&early, &pcap()[..pcap().len() - 1]).unwrap();
    fs::write(&late, pcap()).unwrap();
    let vantages = Vantages::new();
    let mut reader = MergedReader::follow(&[&early, &late]).unwrap();
    let mut times = Vec::new();
    for _ in 0..5 {
        let time = reader.next_time(&vantages).unwrap().unwrap();
        times.push((time.as_nanos() / 1_000_000_000, reader.waiting()));
        assert_eq!(reader.next_frame(&vantages).unwrap().unwrap().time, time);
    }
    assert_eq!(times, [(1, false), (1, false), (2, false), (2, true), (3, true)]);
    assert_eq!(reader.next_time(&vantages).unwrap(), None);
    assert!(reader.waiting());
}

#[test]
fn a_pipe_waits_only_while_it_is_opened() {
    let (from, mut to) = std::io::pipe().unwrap();
    let opening = Arc::new(AtomicBool::new(true));
    let mut pipe = Pipe::start(from, Arc::clone(&opening)).unwrap();
    to.write_all(b"abc").unwrap();
    let mut buffer = [0; 2];
    assert_eq!(pipe.read(&mut buffer).unwrap(), 2);
    opening.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!((pipe.read(&mut buffer).unwrap(), buffer[0]), (1, b'c'));
    assert_eq!(pipe.read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(to);
    opening.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(pipe.read(&mut buffer).unwrap(), 0);
}
