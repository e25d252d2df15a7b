//! What all tests share: under emulation a lab takes ten seconds and dnspath five to attach.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use dnspath_tests::clock::wait_until;
use dnspath_tests::harness::Outcome;
use dnspath_tests::query::wait_for_server;
use dnspath_tests::topology::{UPSTREAM4, UPSTREAM6};
use dnspath_tests::tracer::{Told, Tracer, binary};
use dnspath_tests::{Lab, LabOptions, Responder};
use serde_json::Value;

/// Enough on a loaded machine.
const A_WHILE: Duration = Duration::from_secs(20);

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

/// A lab whose servers answer, and dnspath on its node. They end in this order.
pub(crate) struct Stage {
    tracer: Option<Tracer>,
    _servers: Vec<Responder>,
    pub(crate) lab: Lab,
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::new(LabOptions { server: None, far_pods: Vec::new(), ..LabOptions::default() })?;
        let mut servers = vec![Responder::start(lab.upstream())?];
        for name in ["dns1", "dns2"] {
            servers.push(Responder::start(&lab.pod(name)?.namespace)?);
        }
        // Who waits for a neighbour's address first waits long under emulation: that is not what is tested.
        let mut addresses: Vec<IpAddr> = vec![UPSTREAM4.into(), UPSTREAM6.into()];
        for address in &addresses {
            wait_for_server(&lab.pod("web")?.namespace, (*address, 53).into(), "lab.test", A_WHILE)?;
        }
        for name in ["dns1", "dns2"] {
            let pod = lab.pod(name)?;
            addresses.extend([IpAddr::from(pod.ip4), IpAddr::from(pod.ip6)]);
        }
        for address in addresses {
            wait_for_server(lab.node(), (address, 53).into(), "lab.test", A_WHILE)?;
        }
        Ok(Self { tracer: None, _servers: servers, lab })
    }

    /// Lines told so far that `wanted` takes; waits a while until there are `count` of them.
    pub(crate) fn told(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let tracer = self.tracer.as_ref().context("dnspath does not run")?;
        let mut lines = Vec::new();
        wait_until(A_WHILE, || {
            std::thread::sleep(Duration::from_millis(200));
            // A line that is half written makes no sense yet.
            lines = tracer.lines().unwrap_or_default();
            lines.retain(&wanted);
            lines.len() >= count
        });
        Ok(lines)
    }

    /// Ends dnspath; what it told, and what it had said on standard error.
    pub(crate) fn finish(&mut self) -> Result<(Told, String)> {
        let tracer = self.tracer.take().context("dnspath does not run")?;
        let log = tracer.log()?;
        Ok((tracer.finish()?, log))
    }

    /// Takes everything down.
    pub(crate) fn take_down() {
        drop(STAGE.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Ends dnspath on the lab's node, whatever it told.
pub(crate) fn finish_quietly() {
    if let Some(stage) = STAGE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        stage.tracer = None;
    }
}

/// Runs a test while nothing watches the lab, which the first test makes.
pub(crate) fn on_quiet_stage(test: impl FnOnce(&mut Stage) -> Result<Outcome>) -> Result<Outcome> {
    if let Err(reason) = binary() {
        return Ok(Outcome::LeftOut(format!("{reason:#}")));
    }
    let mut stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if stage.is_none() {
        *stage = Some(Stage::new()?);
    }
    test(stage.as_mut().context("there is no stage")?)
}

/// Runs a test while dnspath watches the lab's node.
pub(crate) fn on_stage(test: impl FnOnce(&mut Stage) -> Result<Outcome>) -> Result<Outcome> {
    on_quiet_stage(|stage| {
        if stage.tracer.is_none() {
            let units = ["--unit", "message", "--unit", "drop", "--unit", "finding"];
            stage.tracer = Some(Tracer::stream(stage.lab.node(), &units)?);
        }
        test(stage)
    })
}
