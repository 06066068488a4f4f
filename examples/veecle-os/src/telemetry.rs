//! Telemetry: hands what the program's spans and logs say to the connector, as JSON lines.

use std::env;

use tokio::sync::mpsc::Sender;
use veecle_telemetry::collector::{Export, set_exporter};
use veecle_telemetry::info;
use veecle_telemetry::protocol::{ExecutionId, InstanceMessage};

use crate::line::{Outgoing, encode};

/// Never waits: the actors call it in the middle of their work. A line that finds no room is lost.
#[derive(Debug)]
struct Exporter {
    lines: Sender<String>,
}

impl Export for Exporter {
    fn export(&self, message: InstanceMessage<'_>) {
        if let Ok(room) = self.lines.try_reserve()
            && let Some(line) = encode(&Outgoing::Telemetry(message))
        {
            room.send(line);
        }
    }
}

/// Sends all spans and logs of this program to `lines` from now on.
///
/// # Panics
///
/// When called a second time.
pub fn start(program: &'static str, lines: Sender<String>) {
    // Each run has an id of its own, so that a restarted program is not taken for its predecessor.
    let execution = ExecutionId::random(&mut rand::rng());
    // The collector wants an exporter that lives as long as the program.
    let exporter = Box::leak(Box::new(Exporter { lines }));
    set_exporter(execution, exporter).expect("telemetry is started once");

    let runtime = env::var("VEECLE_RUNTIME_ID").unwrap_or_default();
    info!("started", program = program, runtime = runtime);
}
