//! Both actors in one program, without an orchestrator.

use veecle_os_examples::actors::{PingActor, PongActor};
use veecle_os_examples::{Ping, Pong};

#[veecle_os::osal::std::main]
async fn main() {
    veecle_os::runtime::execute! {
        store: [Ping, Pong],
        actors: [PingActor, PongActor],
    }
    .await;
}
