// The library for instances, through the examples that use it: messages, telemetry, control.

import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { ControlClient } from "../../src/client.ts";
import { type Daemon, startDaemon } from "../../src/daemon.ts";
import { newInstanceId } from "../../src/model.ts";
import type { Info } from "../../src/protocol/info.ts";
import { connectRuntime } from "../../src/runtime.ts";
import { scratch } from "../support/scratch.ts";

const examples = join(import.meta.dir, "..", "..", "examples");
let folder: string;
let daemon: Daemon;
let client: ControlClient;
let telemetry: string;
let server: Bun.TCPSocketListener<undefined>;

beforeEach(async () => {
  folder = scratch("veecle-runtime-");
  telemetry = "";
  server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(_socket, chunk) {
        telemetry += chunk.toString();
      },
    },
  });
  daemon = await startDaemon({
    control: { kind: "unix", path: join(folder, "control.socket") },
    telemetry: { kind: "tcp", host: "127.0.0.1", port: server.port },
    log: "off",
    env: { ...process.env, XDG_RUNTIME_DIR: folder },
    writeLog: () => {},
  });
  client = await ControlClient.connect(daemon.control);
});

afterEach(async () => {
  client.close();
  await daemon.stop();
  server.stop(true);
  rmSync(folder, { recursive: true });
});

/** Adds an example, run by the Bun that runs the tests. */
async function add(name: string, privileged: boolean = false): Promise<string> {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\nexec '${process.execPath}' '${join(examples, name)}.ts'\n`);
  chmodSync(path, 0o755);
  const id = newInstanceId();
  await client.request({ kind: "Add", id, path, settings: { privileged } });
  return id;
}

const start = (id: string): Promise<unknown> =>
  client.request({ kind: "Start", id, priority: undefined });

const link = (typeName: string, id: string, from?: string): Promise<unknown> =>
  client.request({ kind: "Link", link: { from, typeName, to: { kind: "instance", id } } });

async function until(look: (info: Info) => boolean): Promise<Info> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const info = (await client.request({ kind: "Info" })) as Info;
    if (look(info)) return info;
    if (performance.now() > deadline) throw new Error(`not reached: ${JSON.stringify(info)}`);
    await Bun.sleep(10);
  }
}

test("ping, pong and trace exchange messages and report them", async () => {
  const [ping, pong, trace] = [await add("ping"), await add("pong"), await add("trace")];
  await link("demo::Ping", pong, ping);
  await link("demo::Pong", ping, pong);
  await link("demo::Ping", trace);
  await link("demo::Pong", trace);
  for (const id of [trace, pong, ping]) await start(id);
  const info = await until(
    ({ routes }) => (routes.find((route) => route.to === ping)?.delivered ?? 0) >= 20,
  );
  expect(info.runtimes[ping]).toMatchObject({ dialect: "native", connected: true });
  await until(() => telemetry.split("\n").length > 20);
  const bodies = telemetry
    .split("\n")
    .slice(0, 2)
    .map((line) => JSON.parse(line).message.Log.body);
  expect(bodies).toEqual(['demo::Ping {"value":0}', 'demo::Pong {"value":0}']);
});

test("a privileged stopper stops itself, an unprivileged one is told why not", async () => {
  const lines = async (id: string): Promise<string[]> => {
    const output = (await ControlClient.connect(daemon.control)).follow(id);
    await output.ready;
    await start(id);
    const found: string[] = [];
    for await (const line of output) {
      found.push(Buffer.from(line).toString());
      if (found.length === 2) return found;
    }
    return found;
  };
  const allowed = await add("stopper", true);
  expect(await lines(allowed)).toEqual([
    "stopper: asking to be stopped",
    "stopper: told to stop, goodbye",
  ]);
  await until(({ runtimes }) => runtimes[allowed]?.state === "stopped");
  expect(await lines(await add("stopper"))).toEqual([
    "stopper: asking to be stopped",
    "stopper: no control privileges",
  ]);
});

test("a program that no orchestrator started is told so", async () => {
  expect(connectRuntime()).rejects.toThrow("VEECLE_IPC_SOCKET and VEECLE_RUNTIME_ID are not set");
});
