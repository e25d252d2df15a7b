//! Names of pods and services in findings: beside each address that is a subject, and in place of those in the sentence.

use super::Finding;
use crate::model::{Pods, Timestamp};
use std::net::{IpAddr, SocketAddr};

/// Names the pods and services that `findings` are about, as they were when each was last seen.
pub fn name_pods(findings: &mut [Finding], pods: &Pods) {
    for finding in findings {
        let name = |address: IpAddr| Some(pods.name_at(address, finding.last)?.to_string());
        let service = |text: &str| {
            let (address, port) = address(text)?;
            let name = pods.services().name_at(address, port, finding.last)?;
            Some(("service_name", name.to_string()))
        };
        let mut subject = Vec::with_capacity(finding.subject.len() + 1);
        for (key, value) in std::mem::take(&mut finding.subject) {
            let named = match key {
                "client" => value.parse().ok().and_then(name).map(|pod| ("pod", pod)),
                "clients" => named_list(&value, name).map(|names| ("pods", names)),
                "server" => {
                    let pod = address(&value).and_then(|(address, _)| name(address));
                    pod.map(|pod| ("server_pod", pod)).or_else(|| service(&value))
                }
                "service" => service(&value),
                _ => None,
            };
            subject.push((key, value));
            subject.extend(named.filter(|(key, _)| subject.iter().all(|(known, _)| known != key)));
        }
        finding.subject = subject;
        finding.summary = in_sentence(&finding.summary, pods, finding.last);
    }
}

/// The names of these addresses; an address stays where it has none. `None` where none has.
fn named_list(addresses: &str, name: impl Fn(IpAddr) -> Option<String>) -> Option<String> {
    let named: Vec<Option<String>> =
        addresses.split(' ').map(|one| one.parse().ok().and_then(&name)).collect();
    named.iter().any(Option::is_some).then(|| {
        let shown = addresses.split(' ').zip(named).map(|(one, name)| name.unwrap_or_else(|| one.to_owned()));
        shown.collect::<Vec<_>>().join(" ")
    })
}

/// The sentence with names for addresses, each address behind its name the first time.
fn in_sentence(sentence: &str, pods: &Pods, time: Timestamp) -> String {
    const AROUND: [char; 6] = ['(', ')', ',', ';', '.', ':'];
    let mut told: Vec<IpAddr> = Vec::new();
    let words = sentence.split(' ').map(|word| {
        let bare = word.trim_matches(AROUND);
        // An IPv6 address may end in a colon that is not a sentence's.
        let named = address(bare).and_then(|(address, port)| {
            let pod = pods.name_at(address, time).map(|pod| pod.to_string());
            let service = || pods.services().name_at(address, port, time).map(|name| name.to_string());
            Some((address, port, pod.or_else(service)?))
        });
        let Some((address, port, mut shown)) = named else { return word.to_owned() };
        if let Some(port) = port {
            shown.push_str(&format!(":{port}"));
        }
        if !told.contains(&address) {
            told.push(address);
            shown = format!("{shown} ({address})");
        }
        word.replacen(bare, &shown, 1)
    });
    words.collect::<Vec<_>>().join(" ")
}

/// An address, and its port where it has one.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|it| (it.ip(), Some(it.port())));
    text.parse().ok().map(|address| (address, None)).or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        findings::{Findings, testing::searched},
        model::{Coverage, Family, Observer as _, PodName, Service},
    };

    #[test]
    fn subjects_and_sentences_name_pods() {
        let lookup = searched("api.example.com", Family::Glibc, 1);
        let mut findings = Findings::default();
        findings.lookup(&lookup);
        let mut ranked = findings.ranked(&Coverage::default(), (lookup.start, lookup.start));
        let pods = Pods::new();
        name_pods(&mut ranked, &pods);
        let before = ranked[0].clone();
        assert!(!before.subject.iter().any(|(key, _)| *key == "pod"), "{before:?}");
        pods.tell(
            lookup.client,
            PodName { namespace: "shop".into(), name: "web-7c9f".into() },
            Timestamp::EPOCH,
        );
        name_pods(&mut ranked, &pods);
        assert_eq!(
            ranked[0].subject[..2],
            [("client", lookup.client.to_string()), ("pod", "shop/web-7c9f".to_owned())]
        );
        assert_eq!(ranked[0].summary, before.summary.replacen("10.244.1.5", "shop/web-7c9f (10.244.1.5)", 1));
    }

    #[test]
    fn services_are_named_beside_their_addresses() {
        let pods = Pods::new();
        let told = |address: &str, name: &str| {
            let address = address.parse().unwrap();
            pods.services()
                .tell(&Service { address, name: name.into(), backends: [].into() }, Timestamp::EPOCH);
        };
        told("10.96.0.10:53", "kube-system/kube-dns:dns");
        told("10.96.7.7:80", "shop/web:http");
        let mut findings = Findings::default();
        findings.lookup(&searched("api.example.com", Family::Glibc, 1));
        let mut ranked = findings.ranked(&Coverage::default(), Default::default());
        let finding = &mut ranked[0];
        finding.summary = "10.244.0.2, behind 10.96.0.10, and 10.96.7.7:80 of 10.96.0.10".into();
        for (subject, named) in [
            (("server", "10.96.0.10"), Some("kube-system/kube-dns")),
            (("server", "10.96.7.7:80"), Some("shop/web")),
            (("service", "10.96.0.10"), Some("kube-system/kube-dns")),
            (("server", "10.244.0.2"), None),
            (("client", "10.96.0.10"), None),
        ] {
            let mut findings = [finding.clone()];
            findings[0].subject = vec![(subject.0, subject.1.to_owned())];
            name_pods(&mut findings, &pods);
            let name = findings[0].subject.iter().find(|(key, _)| *key == "service_name");
            assert_eq!(name.map(|(_, name)| name.as_str()), named, "{subject:?}");
            assert_eq!(
                findings[0].summary,
                "10.244.0.2, behind kube-system/kube-dns (10.96.0.10), and shop/web:80 (10.96.7.7) of kube-system/kube-dns"
            );
        }
    }

    #[test]
    fn addresses_in_a_sentence() {
        let pods = Pods::new();
        pods.tell(
            "10.0.0.1".parse().unwrap(),
            PodName { namespace: "a".into(), name: "b".into() },
            Timestamp::EPOCH,
        );
        pods.tell(
            "fd00::1".parse().unwrap(),
            PodName { namespace: String::new(), name: "node".into() },
            Timestamp::EPOCH,
        );
        let cases = [
            ("10.0.0.1 waits for 10.0.0.1:53, twice", "a/b (10.0.0.1) waits for a/b:53, twice"),
            ("5 clients (10.0.0.1, 10.0.0.2, ...)", "5 clients (a/b (10.0.0.1), 10.0.0.2, ...)"),
            ("[fd00::1]:53 and fd00::1.", "node:53 (fd00::1) and node."),
            ("10.0.0.1.in-addr.arpa of 10.0.0.11", "10.0.0.1.in-addr.arpa of 10.0.0.11"),
        ];
        for (sentence, expected) in cases {
            assert_eq!(in_sentence(sentence, &pods, Timestamp::EPOCH), expected);
        }
    }
}
