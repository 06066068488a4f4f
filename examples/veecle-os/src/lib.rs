//! Ping and pong: two actors of Veecle OS, in one program or in two that the orchestrator connects.
//!
//! The types live here, in the library, because the orchestrator routes a value by the full name of
//! its type. Both programs must use the same name, and they do because they use the same type.

pub mod actors;
pub mod ipc;
pub mod line;
pub mod telemetry;

use std::fmt;
use std::io::{self, Write};
use std::process;

use serde::{Deserialize, Serialize};
use veecle_os::runtime::Storable;

/// A question. Its routing tag is `veecle_os_examples::Ping`.
#[derive(Clone, Debug, Deserialize, Serialize, Storable)]
pub struct Ping {
    pub value: u64,
}

/// The answer, with the value of the question. Its routing tag is `veecle_os_examples::Pong`.
#[derive(Clone, Debug, Deserialize, Serialize, Storable)]
pub struct Pong {
    pub value: u64,
}

/// Prints one line on stdout at once, and ends the program when nobody reads it any more.
pub fn say(line: fmt::Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    if writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .is_err()
    {
        process::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use std::any::type_name;

    use super::*;

    #[test]
    fn routing_tags_are_those_that_the_readme_tells_to_link() {
        assert_eq!(type_name::<Ping>(), "veecle_os_examples::Ping");
        assert_eq!(type_name::<Pong>(), "veecle_os_examples::Pong");
    }
}
