//! The actor that answers, as an instance of the orchestrator.

use veecle_os_examples::actors::PongActor;
use veecle_os_examples::ipc::{self, Input, Output};
use veecle_os_examples::{Ping, Pong, telemetry};

#[veecle_os::osal::std::main]
async fn main() {
    let connection = ipc::connect::<Pong, Ping>("pong").await;
    telemetry::start("pong", connection.telemetry);
    veecle_os::runtime::execute! {
        store: [Ping, Pong],
        actors: [
            PongActor,
            Output<Pong>: connection.values,
            Input<Ping>: connection.input,
        ],
    }
    .await;
}
