#!/usr/bin/env bun
// Answers every Ping { value } with Pong { value }.

import { connectRuntime } from "../src/runtime.ts";

const runtime = await connectRuntime();

runtime.onMessage("demo::Ping", (payload) => {
  console.log(`pong: answered ${JSON.parse(payload.toString()).value}`);
  runtime.send("demo::Pong", payload);
});

await runtime.closed;
