// The demo: rounds within seconds, a clean end on Ctrl-C, nothing left behind.

import { expect, test } from "bun:test";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { scratch } from "../support/scratch.ts";
import { until } from "../support/wire.ts";

test("the demo shows rounds, ends on Ctrl-C, and leaves nothing behind", async () => {
  const folder = scratch("veecle-demo-test-");
  const begin = performance.now();
  const demo = Bun.spawn({
    cmd: [process.execPath, join(import.meta.dir, "..", "..", "examples", "demo.ts")],
    env: { ...process.env, TMPDIR: folder },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  let text = "";
  let msToRounds: number | undefined;
  for await (const chunk of demo.stdout) {
    text += Buffer.from(chunk).toString();
    if (msToRounds !== undefined || !/[1-9][0-9]* rounds per second/.test(text)) continue;
    msToRounds = performance.now() - begin;
    demo.kill("SIGINT");
  }
  expect(await demo.stderr.text()).toBe("");
  expect(await demo.exited).toBe(0);
  expect(text).toMatch(/stopped everything: [1-9][0-9]* rounds, [1-9][0-9]* lines of telemetry/);
  expect(text).toContain('telemetry: {"thread_id"');
  expect(msToRounds as number).toBeLessThan(20_000); // a bound of sanity
  expect(readdirSync(folder)).toEqual([]);
  rmSync(folder, { recursive: true });
});

test("at a terminal of 80 columns, what the demo says fits", async () => {
  let text = "";
  const demo = Bun.spawn({
    cmd: [process.execPath, join(import.meta.dir, "..", "..", "examples", "demo.ts")],
    env: { ...process.env, TMPDIR: "/tmp" }, // what is for copying is not broken
    terminal: { cols: 80, rows: 24, data: (_, chunk) => (text += Buffer.from(chunk).toString()) },
  });
  await until(
    () => `rounds, and there is ${text}`,
    () => /[1-9][0-9]* rounds per second/.test(text),
  );
  demo.kill("SIGINT");
  expect(await demo.exited).toBe(0);
  await until(
    () => `the end, and there is ${text}`,
    () => text.includes("stopped everything"),
  );
  const lines = Bun.stripANSI(text).split(/\r\n|\r/);
  expect(lines.filter((line) => line.length > 80)).toEqual([]);
  expect(text).toContain('telemetry: Info: demo::Ping {"value":0}');
});
