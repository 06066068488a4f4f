#!/usr/bin/env bun
// Receives Ping and Pong, and reports each as telemetry. Link both types to it.

import { connectRuntime } from "../src/runtime.ts";

const runtime = await connectRuntime();

runtime.onMessage("*", (payload, typeName) => {
  runtime.telemetry({
    thread_id: runtime.id,
    message: {
      Log: {
        time_unix_nano: Date.now() * 1_000_000,
        severity: "Info",
        body: `${typeName} ${payload}`,
        attributes: [],
      },
    },
  });
});

await runtime.closed;
