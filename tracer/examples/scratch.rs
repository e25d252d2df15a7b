use dnspath::{capture::*, model::*, pipeline::clock, wire::Decoder};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let vantages = Vantages::new();
    let notes = Notes::default();
    let mut o = Options::default();
    if a.len() > 1 && a[1] != "-" {
        o.namespaces = vec![Netns::from_argument(&a[1])];
    }
    let t0 = clock::monotonic_now();
    let off = clock::wall_now().as_nanos() - clock::monotonic_now();
    let mut c = match Capture::start(&o, off, &vantages, &notes) {
        Ok(c) => c,
        Err(e) => {
            println!("ERR {e}");
            return;
        }
    };
    println!(
        "attached {} in {} ms facts {:?}",
        c.attached(),
        (clock::monotonic_now() - t0) / 1_000_000,
        c.facts()
    );
    let mut d = Decoder::new(&[53]);
    let mut n = 0u64;
    let verbose = a.len() > 3;
    let secs: u64 = a.get(2).map_or(5, |s| s.parse().unwrap());
    let end = clock::monotonic_now() + secs * 1_000_000_000;
    while clock::monotonic_now() < end {
        c.drain(|f| {
            d.decode(f, &vantages, &mut |s| {
                n += 1;
                if verbose {
                    let SightingBody::Dns(m) = &s.body else {
                        println!("{:?}", s.body);
                        return;
                    };
                    println!(
                        "{} {} {} > {} {} {:?} id {:04x} {} {} nat {:?}",
                        s.time,
                        vantages.lookup(s.vantage).unwrap(),
                        s.flow.source,
                        s.flow.destination,
                        s.transport,
                        m.flags,
                        m.id,
                        m.name,
                        m.qtype,
                        s.nat.map(|n| (n.original.destination, n.reply.source, n.reply.destination))
                    );
                }
            })
        });
        for l in notes.take_fresh() {
            println!("NOTE {l}");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    c.stop();
    c.drain(|f| d.decode(f, &vantages, &mut |_| n += 1));
    println!("sightings {n} lost {} attached {} {:?}", c.lost(), c.attached(), d.counters());
}
