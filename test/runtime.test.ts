// The library for instances on a connection to a stand-in for the orchestrator.

import { afterEach, beforeEach, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";

import type { Socket, UnixSocketListener } from "bun";

import { encodeNative, KIND } from "../src/message.ts";
import { scratch } from "./support/scratch.ts";

const library = join(import.meta.dir, "..", "src", "runtime.ts");
let folder: string;
let path: string;
let server: UnixSocketListener<undefined>;
/** What the orchestrator does with what it is sent. */
let onData: (socket: Socket<undefined>, chunk: Buffer) => void;

beforeEach(() => {
  folder = scratch("veecle-library-");
  path = join(folder, "socket");
  server = Bun.listen({
    unix: path,
    socket: {
      data: (socket, chunk) => onData(socket, chunk),
      drain: (socket) => onData(socket, Buffer.alloc(0)),
    },
  });
});

afterEach(() => {
  server.stop(true);
  rmSync(folder, { recursive: true });
});

/** Runs a program that has a `runtime`; returns its exit code and what it printed. */
async function run(program: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const begin = `import { connectRuntime } from ${JSON.stringify(library)};
    const runtime = await connectRuntime();\n`;
  const child = Bun.spawn([process.execPath, "-e", begin + program], {
    env: { ...process.env, VEECLE_IPC_SOCKET: path, VEECLE_RUNTIME_ID: "one" },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [code, stdout, stderr] = await Promise.all([
    child.exited,
    child.stdout.text(),
    child.stderr.text(),
  ]);
  return { code, stdout, stderr };
}

const data = (typeName: string, payload: string): Buffer =>
  encodeNative(KIND.data, Buffer.from(typeName), Buffer.from(payload));

test("a handler that throws ends the program, with its error on standard error", async () => {
  onData = (socket) => void socket.write(data("a", "one"));
  const { code, stderr } = await run(`
    runtime.onMessage("a", (payload) => {
      throw new Error("cannot handle " + payload);
    });
    await runtime.closed;`);
  expect(stderr).toContain("cannot handle one");
  expect(code).toBe(1);
});

test("a handler that throws ends the connection of a program that goes on", async () => {
  onData = (socket) => void socket.write(Buffer.concat([data("a", "one"), data("a", "two")]));
  const { code, stdout } = await run(`
    process.on("uncaughtException", (error) => console.log(error.message));
    runtime.onMessage("a", (payload) => {
      throw new Error("cannot handle " + payload);
    });
    await runtime.closed;
    console.log("closed");`);
  expect(stdout).toBe("cannot handle one\nclosed\n");
  expect(code).toBe(0);
});

test("nothing waits for a connection that has ended", async () => {
  onData = (socket) => void socket.terminate();
  const { code, stdout } = await run(`
    await runtime.closed;
    const ended = ({ code }) => console.log(code);
    console.log(runtime.send("a", "late"));
    await runtime.sent().catch(ended);
    await runtime.start("two").catch(ended);
    await runtime.close();
    console.log("closed");`);
  expect(stdout).toBe("false\nunreachable\nunreachable\nclosed\n");
  expect(code).toBe(0);
});

test("who waits until everything is sent hears that the connection has ended before", async () => {
  onData = (socket) => {
    socket.pause();
    setImmediate(() => socket.terminate());
  };
  const { code, stdout } = await run(`
    const payload = Buffer.alloc(1024 * 1024 - 1024);
    while (runtime.send("a", payload));
    await runtime.sent().catch(({ message }) => console.log(message));`);
  expect(stdout).toBe("The orchestrator closed the connection\n");
  expect(code).toBe(0);
});

test("what the orchestrator would refuse is refused before it is sent", async () => {
  let received = 0;
  onData = (socket, chunk) => {
    received += chunk.length;
    if (received > 1024 * 1024) socket.terminate();
  };
  const { stdout } = await run(`
    const attempt = (send) => {
      try {
        console.log(send());
      } catch ({ code, message }) {
        console.log(code, message);
      }
    };
    attempt(() => runtime.send("", "payload"));
    attempt(() => runtime.send("a\\0b", "payload"));
    attempt(() => runtime.send("\\ud800", "payload"));
    attempt(() => runtime.send("t".repeat(1025), "payload"));
    attempt(() => runtime.send("a", Buffer.alloc(1024 * 1024 - 4)));
    attempt(() => runtime.telemetry({ text: "t".repeat(1024 * 1024) }));
    attempt(() => runtime.send("a", Buffer.alloc(1024 * 1024 - 5)));
    await runtime.closed;`);
  expect(stdout.trimEnd().split("\n")).toEqual([
    "bad_request Cannot send: the type name cannot be used: it is empty",
    "bad_request Cannot send: the type name cannot be used: it contains a NUL character",
    "bad_request Cannot send: the type name cannot be used: it contains an unpaired surrogate",
    "bad_request Cannot send: the type name cannot be used: it is 1025 bytes long, more than 1024",
    "limit_exceeded Cannot send: the frame would have 1048577 bytes, more than 1048576",
    "limit_exceeded Cannot send: the frame would have 1048591 bytes, more than 1048576",
    "true",
  ]);
});

test("ever new type names do not pile up", async () => {
  let unsent = Buffer.concat(Array.from({ length: 20_000 }, (_, i) => data(`in::${i}`, "")));
  onData = (socket) => {
    unsent = unsent.subarray(Math.max(0, socket.write(unsent)));
  };
  const { stdout } = await run(`
    import { heapStats } from "bun:jsc";
    const last = Promise.withResolvers();
    runtime.onMessage("in::19999", last.resolve);
    await last.promise;
    for (let i = 0; i < 20_000; i++) runtime.send("out::" + i, "");
    await runtime.sent();
    Bun.gc(true);
    const { objectTypeCounts } = heapStats();
    console.log(JSON.stringify([objectTypeCounts.Uint8Array, objectTypeCounts.string]));
    await runtime.close();`);
  const [buffers, texts] = JSON.parse(stdout);
  expect(buffers).toBeLessThan(10_000);
  expect(texts).toBeLessThan(30_000);
});
