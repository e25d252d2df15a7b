//! The lab: a Kubernetes-shaped node made of network namespaces, real DNS servers and real resolvers in it, and
//! what the end-to-end tests need to watch and to load them.
//!
//! ```no_run
//! use dnspath_tests::{Client, Lab, LabOptions};
//!
//! let lab = Lab::new(LabOptions::default())?;
//! let answer = Client::Glibc.lookup(lab.pod("web")?, "payments.shop")?;
//! assert!(!answer.addresses.is_empty());
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! [`Lab`]'s documentation has the picture. Everything is inside namespaces whose names begin with `dp` and the
//! owner's pid; all of it goes when the `Lab` is dropped, and also when its owner is killed.

pub mod callgrind;
pub mod capture;
pub mod clash;
pub mod client;
pub mod clock;
pub mod comparison;
pub mod conntrack;
pub mod containerd;
pub mod drops;
pub mod harness;
pub mod lab;
pub mod load;
pub mod namespace;
pub mod packet;
pub mod process;
pub mod query;
pub mod refusal;
pub mod report;
pub mod requirements;
pub mod responder;
pub mod scenarios;
pub mod screen;
pub mod server;
pub mod service;
pub mod storm;
pub mod sweep;
pub mod toolbox;
pub mod topology;
pub mod tracer;
pub mod traffic;
pub mod usage;

pub use capture::{Capture, WireMessage};
pub use client::{Client, LookupAnswer};
pub use drops::{QueryDrop, QueryFilter};
pub use lab::{Lab, LabOptions, Pod};
pub use namespace::Namespace;
pub use process::Process;
pub use requirements::{Missing, requirements};
pub use responder::Responder;
pub use server::{Server, ServerKind, ServerOptions, Zone};
pub use service::Service;
pub use tracer::Tracer;
