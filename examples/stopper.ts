#!/usr/bin/env bun
// Asks the orchestrator to stop it. Only a privileged instance may: add it with --privileged.

import { connectRuntime } from "../src/runtime.ts";

const runtime = await connectRuntime();
process.on("SIGINT", () => {
  console.log("stopper: told to stop, goodbye");
  process.exit(0);
});
console.log("stopper: asking to be stopped");
await runtime.stop(runtime.id).catch((error) => {
  console.log(`stopper: ${error.message}`);
  process.exit(1);
});
