#!/usr/bin/env bun
// Two orchestrators, three programs, one telemetry receiver: everything real, explained line by line.
//
//   orchestrator A (control over TCP)            orchestrator B (control over a Unix socket)
//   ping ──Ping──┬──────────UDP──────────────────► pong
//     ▲          └─► trace ──telemetry──► receiver  │
//     └──Pong──────────────UDP──────────────────────┘
//
// Ends on Ctrl-C, or after ten seconds away from a terminal, and leaves nothing behind. The daemons
// end with the demo however it ends: `--no-orphans` sees to it.

import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { parseAddress } from "../src/address.ts";
import { ControlClient } from "../src/client.ts";
import { SAME_KEY_MS } from "../src/limits.ts";
import { LineScanner } from "../src/lines.ts";
import type { Info } from "../src/protocol/info.ts";

const SECONDS_WITHOUT_TERMINAL = 10;
const source = (file: string): string => join(import.meta.dir, "..", "src", file);
const interrupted = Promise.withResolvers<"interrupted">();
let isInterrupted = false;
let interruptedAt = 0;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    if (isInterrupted && Date.now() - interruptedAt < SAME_KEY_MS) return;
    if (isInterrupted) process.exit(130); // asked twice: at once
    isInterrupted = true;
    interruptedAt = Date.now();
    interrupted.resolve("interrupted");
  });
}
// The path of a socket is short.
const folder = mkdtempSync(join(tmpdir().length > 32 ? "/tmp" : tmpdir(), "veecle-demo-"));
const isTerminal = process.stdout.isTTY;
const columns = process.stdout.columns || 80; // a terminal may not know its size
let step = 0;

/** Explains a step that is done; the user may have had enough of them. */
function say(text: string): void {
  console.log(`${String(++step).padStart(2)}. ${wrapped(text)}`);
  if (isInterrupted && running.length > 0) throw new Error("interrupted");
}

/** At a terminal, breaks between words; what follows stands below what is said, not below its number. */
function wrapped(text: string): string {
  if (!isTerminal) return text;
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`;
    if (lines.length === 0 || longer.length > columns - 4) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines.join("\n    ");
}

const note = (text: string): void => console.log(`${isTerminal ? "\r\x1b[K" : ""}    ${text}`);

/** Hands whole lines of text to `take`, however the stream is cut. */
function textLines(take: (line: string) => void): (chunk: Uint8Array) => void {
  const scanner = new LineScanner(1 << 20, (chunk, start, end) => {
    for (const line of chunk.toString("utf8", start, end - 1).split("\n")) take(line);
    return end;
  });
  return (chunk) => scanner.push(Buffer.from(chunk));
}

/** Bundles an example into one file that runs anywhere on this machine. */
async function bundle(name: string): Promise<string> {
  const path = join(folder, name);
  const { outputs } = await Bun.build({
    entrypoints: [join(import.meta.dir, `${name}.ts`)],
    target: "bun",
  });
  const text = await (outputs[0] as Blob).text();
  await Bun.write(path, text.replace(/^#!.*/, `#!${process.execPath}`));
  chmodSync(path, 0o755);
  return path;
}

interface Orchestrator {
  readonly name: string;
  control: string;
  ipc: string;
  readonly process: Bun.Subprocess<"ignore", "ignore", "pipe">;
}

/** Starts a daemon and waits until it says where it listens; its warnings are shown. */
async function startOrchestrator(name: string, options: string[]): Promise<Orchestrator> {
  const child = Bun.spawn({
    cmd: [
      ...[process.execPath, "--no-orphans", source("daemon.ts")],
      ...["--ephemeral", "--ipc-socket", "127.0.0.1:0", ...options],
    ],
    env: { ...process.env, XDG_RUNTIME_DIR: folder, VEECLE_ORCHESTRATOR_LOG: "info" },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
    detached: true, // Ctrl-C is for us: we end the daemons in order
  });
  const orchestrator: Orchestrator = { name, process: child, control: "", ipc: "" };
  running.push(orchestrator);
  child.exited.then((code) => {
    if (running.includes(orchestrator)) {
      note(`${name}: the orchestrator ended (${child.signalCode ?? `code ${code}`})`);
    }
  });
  const ready = Promise.withResolvers<Orchestrator>();
  const log: string[] = [];
  const scan = textLines((line) => {
    log.push(line);
    const socket = /socket="?([^" ]+)"?$/.exec(line)?.[1] ?? "";
    if (line.includes("other orchestrators socket=")) orchestrator.ipc = socket;
    else if (line.includes("listening socket=")) {
      orchestrator.control = socket;
      ready.resolve(orchestrator);
    } else if (/^\S+ +(WARN|ERROR) /.test(line)) note(wrapped(`${name}: ${line.slice(28)}`));
  });
  (async () => {
    for await (const chunk of child.stderr) scan(chunk);
    ready.reject(new Error(`orchestrator ${name} did not start:\n${log.join("\n")}`));
  })().catch(ready.reject);
  return ready.promise;
}

/** Runs a command of the CLI and returns what it printed. */
async function cli(orchestrator: Orchestrator, ...words: string[]): Promise<string> {
  const child = Bun.spawn({
    cmd: [process.execPath, source("cli.ts"), "--socket", orchestrator.control, ...words],
    stdin: "ignore",
    stderr: "pipe",
  });
  const [out, problem] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) throw new Error(`cli ${words.join(" ")}: ${problem.trim()}`);
  return out.trim();
}

async function add(
  orchestrator: Orchestrator,
  path: string,
  ...options: string[]
): Promise<string> {
  const said = await cli(orchestrator, "runtime", "add", path, ...options);
  say(
    `${orchestrator.name}: ${said.replace("added instance", `added ${path.split("/").at(-1)} as`)}`,
  );
  return /[0-9a-f-]{36}/.exec(said)?.[0] as string;
}

async function link(from: Orchestrator, type: string, to: string): Promise<void> {
  say(`${from.name}: ${await cli(from, "link", "add", "--type", type, "--to", to)}`);
}

/** What a line of telemetry says, without the ids and times around it, as far as it fits. */
function logged(line: string): string {
  const { severity, body } = JSON.parse(line).message?.Log ?? {};
  const text = body === undefined ? line : `${severity}: ${body}`;
  return text.slice(0, columns - "    telemetry: ".length);
}

/** Prints the first telemetry that arrives, and counts all of it. */
function receiveTelemetry(): { address: string; count(): number; stop(): void } {
  let count = 0;
  const scan = textLines((line) => {
    count++;
    if (count <= 3) note(`telemetry: ${isTerminal ? logged(line) : line.slice(0, 150)}`);
    if (count === 3) note("telemetry: … (the rest is only counted)");
  });
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (_socket, chunk) => scan(chunk) },
  });
  return {
    address: `127.0.0.1:${listener.port}`,
    count: () => count,
    stop: () => listener.stop(true),
  };
}

/** Messages that came back to ping. */
async function countRounds(client: ControlClient, ping: string): Promise<number> {
  const info = (await client.request({ kind: "Info" })) as Info;
  return info.routes.find((route) => route.to === ping)?.delivered ?? 0;
}

/** Shows rounds per second until Ctrl-C, or for a while; returns how many there were. */
async function watch(client: ControlClient, ping: string): Promise<number> {
  let rounds = await countRounds(client, ping);
  let since = performance.now();
  let quietSeconds = 0;
  for (let seconds = 0; isTerminal || seconds < SECONDS_WITHOUT_TERMINAL; seconds++) {
    if ((await Promise.race([interrupted.promise, Bun.sleep(1000)])) === "interrupted") break;
    const now = await countRounds(client, ping);
    const rate = Math.round(((now - rounds) * 1000) / (performance.now() - since));
    quietSeconds = now > rounds ? 0 : quietSeconds + 1;
    rounds = now;
    since = performance.now();
    const line = `${rate} rounds per second, ${rounds} in all`;
    if (isTerminal) process.stdout.write(`\r\x1b[K    ${line} (Ctrl-C ends)`);
    else note(line);
    if (quietSeconds === 2) note("no rounds any more: see what runs with the commands above");
  }
  return countRounds(client, ping);
}

/** What is to be ended, whatever happens. */
const running: Orchestrator[] = [];
let receiver: ReturnType<typeof receiveTelemetry> | undefined;
let client: ControlClient | undefined;

async function main(): Promise<void> {
  const begin = performance.now();
  receiver = receiveTelemetry();
  say(`a telemetry receiver listens on ${receiver.address}`);
  const telemetry = ["--telemetry-socket", receiver.address];
  const [a, b, ping, pong, trace] = await Promise.all([
    startOrchestrator("A", ["--control-socket", "127.0.0.1:0", ...telemetry]),
    startOrchestrator("B", ["--control-socket", join(folder, "b.socket")]),
    bundle("ping"),
    bundle("pong"),
    bundle("trace"),
  ]);
  say(`orchestrator A: control over TCP on ${a.control}, messages over UDP on ${a.ipc}`);
  say(`orchestrator B: control over ${b.control}, messages over UDP on ${b.ipc}`);
  const pingId = await add(a, ping);
  const traceId = await add(a, trace);
  const pongId = await add(b, pong, "--copy");
  await link(a, "demo::Ping", b.ipc);
  await link(b, "demo::Ping", pongId);
  await link(b, "demo::Pong", a.ipc);
  await link(a, "demo::Pong", pingId);
  await link(a, "demo::Ping", traceId);
  await link(a, "demo::Pong", traceId);
  say(`B: ${await cli(b, "runtime", "start", pongId)} (pong)`);
  say(`A: ${await cli(a, "runtime", "start", traceId)} (trace)`);
  say(`A: ${await cli(a, "runtime", "start", pingId)} (ping)`);
  say(
    `everything runs after ${((performance.now() - begin) / 1000).toFixed(1)} s; to look around:`,
  );
  note(`bun run cli --socket ${a.control} runtime list`);
  note(`bun run cli --socket ${b.control} runtime stdout pong`);
  client = await ControlClient.connect(parseAddress(a.control));
  const rounds = await watch(client, pingId);
  if (isTerminal) console.log();
  await stop();
  say(`stopped everything: ${rounds} rounds, ${receiver.count()} lines of telemetry`);
  if (rounds === 0 && !isInterrupted) throw new Error("no round came to its end");
}

/** Ends what runs; a daemon that does not end in time is killed. */
async function stop(): Promise<void> {
  client?.close();
  const ending = running.splice(0).map(({ process: daemon }) => {
    daemon.kill("SIGTERM");
    const timer = setTimeout(() => daemon.kill("SIGKILL"), 15_000);
    return daemon.exited.finally(() => clearTimeout(timer));
  });
  await Promise.all(ending);
  receiver?.stop();
}

try {
  await main();
} catch (error) {
  if (!isInterrupted) {
    console.error(`the demo failed: ${(error as Error).message}`);
    process.exitCode = 1;
  }
} finally {
  await stop();
  rmSync(folder, { recursive: true, force: true });
}
process.exit();
