//! What a line on the instance socket looks like: JSON Lines, one of
//!
//! ```text
//! {"Storable":{"type_name":"a::b::Ping","value":"{\"value\":7}"}}    both ways
//! {"Telemetry":{"execution":1234,"message":{…}}}                     to the orchestrator only
//! ```

use std::any::type_name;
use std::error::Error;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use veecle_telemetry::protocol::InstanceMessage;

/// The longest line that Veecle OS programs send and take, in bytes, its newline included.
const LINE_BYTES_MAX: usize = 2048;

/// A line to the orchestrator. The order of the fields is their order on the wire.
#[derive(Serialize)]
pub enum Outgoing<'a> {
    Storable { type_name: &'a str, value: String },
    Telemetry(InstanceMessage<'a>),
}

#[derive(Deserialize)]
enum Incoming {
    Storable { type_name: String, value: String },
}

/// Returns the line with its newline, or nothing when it is too long for the wire.
pub fn encode(line: &Outgoing<'_>) -> Option<String> {
    let mut text = serde_json::to_string(line).ok()?;
    text.push('\n');
    (text.len() <= LINE_BYTES_MAX).then_some(text)
}

/// Returns the value in a line (without its newline) that should carry a `T`.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, Box<dyn Error + Send + Sync>> {
    if line.len() >= LINE_BYTES_MAX {
        return Err("too long".into());
    }
    let Incoming::Storable {
        type_name: name,
        value,
    } = serde_json::from_slice(line)?;
    if name != type_name::<T>() {
        return Err(format!("this program does not receive {name}").into());
    }
    Ok(serde_json::from_str(&value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ping;

    #[test]
    fn a_value_goes_out_with_ordered_keys_and_without_spaces() {
        let type_name = type_name::<Ping>();
        let value = serde_json::to_string(&Ping { value: 7 }).unwrap();
        assert_eq!(
            encode(&Outgoing::Storable { type_name, value }).unwrap(),
            r#"{"Storable":{"type_name":"veecle_os_examples::Ping","value":"{\"value\":7}"}}"#
                .to_owned()
                + "\n"
        );
    }

    #[test]
    fn a_value_is_read_from_any_form_of_the_same_json() {
        let line = r#" {"Storable": {"value": "{ \"value\": 7 }", "type_name": "veecle_os_examples\u003a:Ping"}} "#;
        assert_eq!(decode::<Ping>(line.as_bytes()).unwrap().value, 7);
    }

    #[test]
    fn lines_of_another_kind_or_type_are_refused() {
        for line in [
            "",
            "{",
            "\u{fffd}",
            r#"{"ControlResponse":"Started"}"#,
            r#"{"Storable":{"type_name":"veecle_os_examples::Pong","value":"{\"value\":7}"}}"#,
            r#"{"Storable":{"type_name":"veecle_os_examples::Ping","value":"7"}}"#,
        ] {
            assert!(decode::<Ping>(line.as_bytes()).is_err(), "{line}");
        }
    }
}
