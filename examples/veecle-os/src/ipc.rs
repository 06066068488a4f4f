//! The connector: makes a Veecle OS program an instance of the orchestrator.
//!
//! It connects to the Unix socket that `VEECLE_IPC_SOCKET` names, and moves values between that
//! socket and the slots of the store. One task reads, one writes; values and telemetry wait in
//! queues of their own, and values go first. `line.rs` says what the lines look like.

use std::any::type_name;
use std::convert::Infallible;
use std::{env, fmt, process};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use veecle_os::runtime::{Reader, Storable, Writer, actor};

use crate::line::{Outgoing, decode, encode};
use crate::say;

/// Values waiting for the socket, or for their actor. A full queue makes its sender wait.
const VALUES_MAX: usize = 16;
/// Telemetry lines waiting for the socket. A full queue drops the newest.
const TELEMETRY_MAX: usize = 1024;

const LOST: &str = "lost the orchestrator";

/// The program's ends of the queues.
pub struct Connection<In> {
    /// For the actor [`Output`].
    pub values: Sender<String>,
    /// For [`crate::telemetry::start`].
    pub telemetry: Sender<String>,
    /// For the actor [`Input`].
    pub input: Receiver<In>,
}

/// Connects to the orchestrator. Ends the program when that fails, or when the connection ends.
pub async fn connect<Out, In>(program: &'static str) -> Connection<In>
where
    In: DeserializeOwned + Send + 'static,
{
    let Ok(path) = env::var("VEECLE_IPC_SOCKET") else {
        let hint = "the orchestrator sets it (`ping_pong` runs without one)";
        fail(
            program,
            format_args!("VEECLE_IPC_SOCKET is not set: {hint}"),
        );
    };
    let (from_socket, to_socket) = match UnixStream::connect(&path).await {
        Ok(socket) => socket.into_split(),
        Err(error) => fail(program, format_args!("cannot connect to {path}: {error}")),
    };
    let (sends, receives) = (type_name::<Out>(), type_name::<In>());
    say(format_args!(
        "{program}: connected, sends {sends}, receives {receives}"
    ));

    let (values, outgoing_values) = channel(VALUES_MAX);
    let (telemetry, outgoing_telemetry) = channel(TELEMETRY_MAX);
    let (incoming, input) = channel(VALUES_MAX);
    tokio::spawn(write_lines(to_socket, outgoing_values, outgoing_telemetry));
    tokio::spawn(read_lines(program, from_socket, incoming));
    Connection {
        values,
        telemetry,
        input,
    }
}

/// Sends every new value of slot `T` to the orchestrator.
#[actor]
pub async fn output<T>(mut slot: Reader<'_, T>, #[init_context] lines: Sender<String>) -> Infallible
where
    T: Storable<DataType = T> + Serialize + 'static,
{
    loop {
        let value = slot
            .wait_for_update()
            .await
            .read(|value| serde_json::to_string(&value));
        let value = value.expect("a value of the store has a form in JSON");
        if let Some(line) = encode(&Outgoing::Storable {
            type_name: type_name::<T>(),
            value,
        }) {
            // Fails only when the program is about to end.
            let _ = lines.send(line).await;
        }
    }
}

/// Writes every value that the orchestrator delivers into slot `T`.
#[actor]
pub async fn input<T>(
    mut slot: Writer<'_, T>,
    #[init_context] mut values: Receiver<T>,
) -> Infallible
where
    T: Storable<DataType = T> + 'static,
{
    while let Some(value) = values.recv().await {
        slot.write(value).await;
    }
    // The task that reads is gone, and the program about to end.
    std::future::pending().await
}

async fn write_lines(
    mut socket: OwnedWriteHalf,
    mut values: Receiver<String>,
    mut telemetry: Receiver<String>,
) {
    loop {
        let line = tokio::select! {
            biased;
            Some(line) = values.recv() => line,
            Some(line) = telemetry.recv() => line,
            else => return,
        };
        // The task that reads notices a lost connection as well, and reports it.
        if socket.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_lines<In>(program: &'static str, socket: OwnedReadHalf, incoming: Sender<In>)
where
    In: DeserializeOwned,
{
    let mut lines = BufReader::new(socket).split(b'\n');
    loop {
        match lines.next_segment().await {
            Ok(Some(line)) => match decode(&line) {
                Ok(value) => _ = incoming.send(value).await,
                Err(why) => eprintln!("{program}: ignored a line of {} bytes: {why}", line.len()),
            },
            Ok(None) => fail(program, format_args!("{LOST}: it closed the connection")),
            Err(error) => fail(program, format_args!("{LOST}: {error}")),
        }
    }
}

fn fail(program: &str, reason: fmt::Arguments<'_>) -> ! {
    eprintln!("{program}: {reason}");
    process::exit(1)
}
