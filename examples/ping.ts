#!/usr/bin/env bun
// Sends Ping { value }, waits for Pong { value }, and goes on with the next value.
// Asks again when no answer comes, so that rounds go on after pong was killed and started again.

import { connectRuntime } from "../src/runtime.ts";

const runtime = await connectRuntime();
const pauseMs = Number(process.env["PING_PAUSE_MS"] ?? 1);
let value = 0;

const ask = (): void => void runtime.send("demo::Ping", { value });
let again = setInterval(ask, 200);

runtime.onMessage("demo::Pong", (payload) => {
  if (JSON.parse(payload.toString()).value !== value) return; // an answer to a question asked twice
  console.log(`ping: round ${value}`);
  value++;
  clearInterval(again);
  again = setInterval(ask, 200);
  if (pauseMs > 0) setTimeout(ask, pauseMs);
  else ask();
});

ask();
await runtime.closed;
clearInterval(again);
