//! The two actors. They know slots and time, and nothing of sockets: the same code runs in one
//! program (`ping_pong`) and in two (`ping` and `pong`).

use std::convert::Infallible;
use std::env;

use veecle_os::osal::api::time::{Duration, TimeAbstraction};
use veecle_os::osal::std::time::Time;
use veecle_os::runtime::{Reader, Writer, actor};
use veecle_telemetry::future::FutureExt;
use veecle_telemetry::{root_span, warn};

use crate::{Ping, Pong, say};

/// How long ping waits for an answer before it asks again: far longer than a round takes, short
/// enough that a restarted pong is noticed at once.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);

/// The pause between rounds when `PING_PAUSE_MS` is not set: a few hundred rounds each second.
const DEFAULT_PAUSE_MS: u64 = 2;

/// Asks 0, 1, 2, … and goes on to the next value only when the present one is answered.
#[actor]
pub async fn ping_actor(mut ping: Writer<'_, Ping>, mut pong: Reader<'_, Pong>) -> Infallible {
    let pause = Duration::from_millis(pause_ms());
    let mut value = 0;
    loop {
        let span = root_span!("round", value = value as i64);
        round(&mut ping, &mut pong, value).with_span(span).await;
        say(format_args!("ping: round {value}"));
        value += 1;
        // The clock of `osal-std` does not fail.
        let _ = Time::sleep(pause).await;
    }
}

/// Answers each question with its own value, whoever asks and whatever was asked before.
#[actor]
pub async fn pong_actor(mut pong: Writer<'_, Pong>, mut ping: Reader<'_, Ping>) -> Infallible {
    loop {
        let Some(Ping { value }) = ping.wait_for_update().await.read_cloned() else {
            continue;
        };
        let span = root_span!("answer", value = value as i64);
        pong.write(Pong { value }).with_span(span).await;
        say(format_args!("pong: answered {value}"));
    }
}

/// Sends `value` until it is answered.
async fn round(ping: &mut Writer<'_, Ping>, pong: &mut Reader<'_, Pong>, value: u64) {
    loop {
        ping.write(Ping { value }).await;

        let deadline = Time::now() + ANSWER_TIMEOUT;
        while let Ok(pong) = Time::timeout_at(deadline, pong.wait_for_update()).await {
            match pong.read_cloned() {
                Some(Pong { value: got }) if got == value => return,
                Some(Pong { value: got }) => check_other(value, got),
                None => {}
            }
        }

        warn!("no answer", value = value as i64);
        say(format_args!("ping: no answer to {value}, asking again"));
    }
}

/// Judges an answer that is not the one expected.
///
/// A smaller value is a duplicate: it was answered before, and asked twice because the first answer
/// was late. A greater one was never asked, unless by an earlier run of this program, whose late
/// answers can only arrive before the first answer to this run.
fn check_other(expected: u64, got: u64) {
    if got < expected || expected == 0 {
        say(format_args!("ping: ignored {got}"));
    } else {
        say(format_args!(
            "ping: out of order: expected {expected}, got {got}"
        ));
    }
}

fn pause_ms() -> u64 {
    match env::var("PING_PAUSE_MS") {
        Ok(text) => text
            .parse()
            .expect("PING_PAUSE_MS is a number of milliseconds"),
        Err(_) => DEFAULT_PAUSE_MS,
    }
}
