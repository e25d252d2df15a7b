use super::*;
use proptest::prelude::*;
use serde_json::json;

/// What a dual-stack node's kernel gives back of kube-proxy's rules: a service with session affinity and an external
/// address, one without endpoints, one of both families.
const IP: &str = include_str!("../../../../tests/fixtures/kube-proxy/nftables-ip.json");
const IP6: &str = include_str!("../../../../tests/fixtures/kube-proxy/nftables-ip6.json");
/// Elements with counters, and chains with shortened names.
const COUNTERS: &str = include_str!("../../../../tests/fixtures/kube-proxy/nftables-counters.json");

fn read(listings: &[&str]) -> Nft {
    let mut nft = Nft::default();
    listings.iter().for_each(|listing| nft.read(listing.as_bytes()).unwrap());
    nft
}

#[test]
fn services_of_both_families() {
    let nft = read(&[IP, IP6]);
    assert_eq!(
        nft.services.shown(),
        [
            "10.96.0.1:443 default/kubernetes:https : 192.168.1.10:6443",
            "10.96.0.10:53 udp kube-system/kube-dns:dns : 10.244.0.2:53 10.244.0.3:53",
            "10.96.12.7:80 shop/payments:http : 10.244.1.9:8080",
            "10.96.40.2:80 shop/cart:http : ",
            "203.0.113.5:80 shop/payments:http : 10.244.1.9:8080",
            "203.0.113.9:80 shop/cart:http : ",
            "[fd00:96::a]:53 udp kube-system/kube-dns:dns : [fd00:244::2]:53",
        ]
    );
    assert_eq!((nft.is_there, nft.broken), (true, 0));
}

#[test]
fn protocols_may_be_numbers() {
    let numbers = IP.replace("\"tcp\", ", "6, ").replace("\"udp\", ", "17, ");
    assert_ne!(numbers, IP);
    assert_eq!(read(&[&numbers]).services.shown(), read(&[IP]).services.shown());
}

#[test]
fn elements_with_counters_and_shortened_names() {
    let nft = read(&[COUNTERS]);
    assert_eq!(
        nft.services.shown(),
        [
            "10.96.0.10:53 udp : 10.244.0.9:5353",
            "10.96.0.11:53 udp a-namespace-with-a-name-of-sixty-three-octets-which-is-all-there-may/a-service : \
             10.244.0.9:5353",
            "10.96.40.2:53 udp kube-system/kube-dns:dns : ",
        ]
    );
    assert_eq!(nft.broken, 0);
}

#[test]
fn names_of_chains() {
    for (chain, name) in [
        ("service-ULMVA6XW-ns1/svc1/tcp/p80", Some("ns1/svc1:p80")),
        ("external-ULMVA6XW-ns1/svc1/udp/", Some("ns1/svc1")),
        ("service-ULMVA6XW-ns1/svc1/udp", Some("ns1/svc1")),
        ("service-ULMVA6XW-ns1/svc1/udp/a-po...", Some("ns1/svc1")),
        ("service-ULMVA6XW-ns1/svc1/ud...", None),
        ("service-ULMVA6XW-ns1/sv...", None),
        ("service-ULMVA6XW-//udp/dns", None),
        ("reject-chain", None),
        ("", None),
    ] {
        assert_eq!(name_of(chain).as_deref(), name, "{chain}");
    }
}

#[test]
fn a_table_that_is_not_there_is_no_error() {
    let missing = io::Error::other("nft: exit status: 1: Error: No such file or directory");
    assert!(is_missing(&missing));
    for kind in [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied] {
        assert!(!is_missing(&io::Error::new(kind, "nft: No such file or directory")), "{kind}");
    }
    assert!(!is_missing(&io::Error::other("nft: exit status: 1: Error: Operation not permitted")));
}

#[test]
fn what_is_broken_is_counted_and_the_rest_is_read() {
    let goto = |target: &str| json!({"goto": {"target": target}});
    let map = |elements: Value| json!({"map": {"name": "service-ips", "elem": elements}});
    let rule = |chain: &str, statements: Value| json!({"rule": {"chain": chain, "expr": statements}});
    let good = json!([{"concat": ["10.0.0.1", "udp", 53]}, goto("service-A-a/b/udp/dns")]);
    let broken = [
        json!(7),
        json!([1, 2, 3]),
        json!([{"concat": ["10.0.0.1", "udp"]}, goto("service-A-a/b/udp/dns")]),
        json!([{"concat": ["10.0.0.x", "udp", 53]}, goto("service-A-a/b/udp/dns")]),
        json!([{"concat": ["10.0.0.1", "udp", 65_536]}, goto("service-A-a/b/udp/dns")]),
        json!([{"concat": ["10.0.0.1", "udp", -1]}, goto("service-A-a/b/udp/dns")]),
        json!([{"elem": {"val": 3}}, null]),
        json!([{"concat": ["10.0.0.1", "udp", 53]}, {"accept": null}]),
    ];
    let mut elements = broken.to_vec();
    elements.push(good);
    let all = json!({"other": [[[]]], "nftables": [
        null,
        3,
        {"map": {"name": "service-ips", "elem": "x"}},
        map(Value::Array(elements)),
        rule("service-A-a/b/udp/dns", json!([goto("endpoint-B"), goto("endpoint-C"), goto("reject-chain")])),
        rule("endpoint-B", json!([{"dnat": {"addr": "10.0.0.2", "port": 53}}])),
        rule("endpoint-C", json!([{"dnat": {"addr": {"map": {}}, "port": 53}}, 8])),
        {"rule": {"chain": 3}},
    ]});
    let nft = read(&[&all.to_string()]);
    assert_eq!(nft.services.shown(), ["10.0.0.1:53 udp a/b:dns : 10.0.0.2:53"]);
    assert_eq!(nft.broken, broken.len() as u64 + 1);
}

#[test]
fn chains_that_lead_in_circles_end() {
    let rule = |from: &str, to: &str| json!({"rule": {"chain": from, "expr": [{"jump": {"target": to}}]}});
    let all = json!({"nftables": [
        {"map": {"name": "service-ips", "elem": [[{"concat": ["10.0.0.1", "udp", 53]}, {"goto": {"target": "service-A"}}]]}},
        rule("service-A", "service-B"),
        rule("service-B", "service-A"),
    ]});
    assert_eq!(read(&[&all.to_string()]).services.shown(), ["10.0.0.1:53 udp : "]);
}

#[test]
fn what_is_no_listing_is_an_error() {
    let deep = "[".repeat(100_000);
    for listing in [
        "",
        "{",
        "[]",
        "{\"nftables\": 3}",
        "{\"nftables\": [{\"map\":",
        "\u{1b}",
        &deep,
        &format!("{{\"nftables\": {deep}"),
    ] {
        assert!(Nft::default().read(listing.as_bytes()).is_err(), "{listing:.40}");
    }
    for cut in (0..IP.len() - 2).step_by(97) {
        assert!(Nft::default().read(&IP.as_bytes()[..cut]).is_err(), "{cut}");
    }
}

proptest! {
    #[test]
    fn any_change_of_a_listing_is_read_or_not(place in 0..IP.len(), octet: u8) {
        let mut listing = IP.as_bytes().to_vec();
        listing[place] = octet;
        let _ = Nft::default().read(&listing[..]);
    }
}
