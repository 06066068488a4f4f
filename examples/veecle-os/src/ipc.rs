//! The connector: makes a Veecle OS program an instance of the orchestrator.
//!
//! The wire is JSON Lines over the Unix socket that `VEECLE_IPC_SOCKET` names. Each line is one of
//!
//! ```text
//! {"Storable":{"type_name":"a::b::Ping","value":"{\"value\":7}"}}    both ways
//! {"Telemetry":{"execution":1234,"message":{…}}}                     to the orchestrator only
//! ```
//!
//! One task reads, one writes. Values and telemetry wait in queues of their own, and values go first.

use std::any::type_name;
use std::convert::Infallible;
use std::{env, fmt, process};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use veecle_os::runtime::{Reader, Storable, Writer, actor};
use veecle_telemetry::protocol::InstanceMessage;

/// The longest line that an existing Veecle OS runtime takes or sends, in bytes.
const LINE_BYTES_MAX: usize = 2048;

/// Values waiting for the socket or for their actor. A full queue makes its sender wait.
const VALUES_MAX: usize = 16;

/// Telemetry lines waiting for the socket. A full queue drops the newest.
const TELEMETRY_MAX: usize = 1024;

#[derive(Serialize)]
enum Outgoing<'a> {
    Storable { type_name: &'a str, value: String },
    Telemetry(InstanceMessage<'a>),
}

#[derive(Deserialize)]
enum Incoming {
    Storable { type_name: String, value: String },
    ControlResponse(IgnoredAny),
}

/// The ends of the queues between the actors and the socket.
pub struct Connection<In> {
    /// For [`Output`].
    pub outgoing: Sender<String>,
    /// For [`Input`].
    pub incoming: Receiver<In>,
    /// For [`crate::telemetry::start`].
    pub telemetry: Sender<String>,
}

/// Connects to the orchestrator; ends the program if that fails, or when the connection is lost.
pub async fn connect<In>(program: &'static str) -> Connection<In>
where
    In: DeserializeOwned + Send + 'static,
{
    let Ok(path) = env::var("VEECLE_IPC_SOCKET") else {
        let hint = "the orchestrator sets it; `ping_pong` runs without one";
        fail(program, format_args!("VEECLE_IPC_SOCKET is not set: {hint}"));
    };
    let socket = match UnixStream::connect(&path).await {
        Ok(socket) => socket,
        Err(error) => fail(program, format_args!("cannot connect to {path}: {error}")),
    };
    let (from_socket, to_socket) = socket.into_split();
    let (outgoing, values) = channel(VALUES_MAX);
    let (telemetry, telemetry_lines) = channel(TELEMETRY_MAX);
    let (input, incoming) = channel(VALUES_MAX);
    tokio::spawn(write_lines(to_socket, values, telemetry_lines));
    tokio::spawn(read_lines(program, from_socket, input));
    Connection { outgoing, incoming, telemetry }
}

/// Sends each new value of the slot `T` to the orchestrator.
#[actor]
pub async fn output<T>(mut slot: Reader<'_, T>, #[init_context] lines: Sender<String>) -> Infallible
where
    T: Storable<DataType = T> + Serialize + 'static,
{
    loop {
        let json = slot.wait_for_update().await.read(|value| serde_json::to_string(&value));
        let value = json.expect("a value of the store is representable in JSON");
        if let Some(line) = encode(&Outgoing::Storable { type_name: type_name::<T>(), value }) {
            // Fails only while the program ends.
            let _ = lines.send(line).await;
        }
    }
}

/// Writes each value that the orchestrator delivers into the slot `T`.
#[actor]
pub async fn input<T>(mut slot: Writer<'_, T>, #[init_context] mut values: Receiver<T>) -> Infallible
where
    T: Storable<DataType = T> + 'static,
{
    while let Some(value) = values.recv().await {
        slot.write(value).await;
    }
    // The reading task is gone, and about to end the program.
    std::future::pending().await
}

/// The line for a telemetry message, if it is short enough for the wire.
pub(crate) fn encode_telemetry(message: InstanceMessage<'_>) -> Option<String> {
    encode(&Outgoing::Telemetry(message))
}

fn encode(line: &Outgoing<'_>) -> Option<String> {
    let mut text = serde_json::to_string(line).ok()?;
    text.push('\n');
    (text.len() <= LINE_BYTES_MAX).then_some(text)
}

async fn write_lines(mut socket: OwnedWriteHalf, mut values: Receiver<String>, mut telemetry: Receiver<String>) {
    loop {
        let line = tokio::select! {
            biased;
            Some(line) = values.recv() => line,
            Some(line) = telemetry.recv() => line,
            else => return,
        };
        // A lost connection is reported once, by the reading task.
        if socket.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_lines<In: DeserializeOwned>(program: &'static str, socket: OwnedReadHalf, input: Sender<In>) {
    let mut lines = BufReader::new(socket).lines();
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => match decode(&line) {
                Ok(Some(value)) => _ = input.send(value).await,
                Ok(None) => {}
                Err(reason) => eprintln!("{program}: ignored a line of {} bytes: {reason}", line.len()),
            },
            Ok(None) => fail(program, format_args!("the orchestrator closed the connection")),
            Err(error) => fail(program, format_args!("lost the orchestrator: {error}")),
        }
    }
}
