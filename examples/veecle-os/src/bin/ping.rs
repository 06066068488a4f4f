//! The actor that asks, as an instance of the orchestrator.

use veecle_os_examples::actors::PingActor;
use veecle_os_examples::ipc::{self, Input, Output};
use veecle_os_examples::{Ping, Pong, telemetry};

#[veecle_os::osal::std::main]
async fn main() {
    let connection = ipc::connect::<Ping, Pong>("ping").await;
    telemetry::start("ping", connection.telemetry);
    veecle_os::runtime::execute! {
        store: [Ping, Pong],
        actors: [
            PingActor,
            Output<Ping>: connection.values,
            Input<Pong>: connection.input,
        ],
    }
    .await;
}
