// Real input: ping and pong on the published crate `veecle-os`, under two orchestrators over UDP,
// with the published `veecle-telemetry-server`. Builds them with cargo, in a cache outside the checkout
// if there is one; without cargo the story is skipped, unless VEECLE_REQUIRE_CARGO says that it must run.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

import { ControlClient } from "../../src/client.ts";
import { type Daemon, startDaemon } from "../../src/daemon.ts";
import { newInstanceId, parseTarget } from "../../src/model.ts";
import type { Info } from "../../src/protocol/info.ts";
import { scratch } from "../support/scratch.ts";

const cargo = Bun.which("cargo");
const mustRun = process.env["VEECLE_REQUIRE_CARGO"] === "1";
const cache =
  process.env["VEECLE_TEST_CACHE"] ??
  join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "veecle-orchestrator-test");
const crate = join(import.meta.dir, "..", "..", "examples", "veecle-os");
const BUILD_MS = 12 * 60_000;

async function run(cmd: string[], env: Record<string, string> = {}): Promise<void> {
  const child = Bun.spawn({
    cmd,
    env: { ...process.env, ...env },
    stdout: "ignore",
    stderr: "pipe",
  });
  const log = await child.stderr.text();
  if ((await child.exited) !== 0) throw new Error(`${cmd.join(" ")} failed:\n${log.slice(-4000)}`);
}

/** Looks until `look` finds something; fails with `what` after 20 s. */
async function until<T>(
  what: string,
  look: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > deadline) throw new Error(`not within 20 s: ${what}`);
    await Bun.sleep(20);
  }
}

function freePort(): number {
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = probe;
  probe.stop(true);
  return port;
}

describe.skipIf(cargo === null && !mustRun)("programs on veecle-os", () => {
  const folder = scratch("veecle-e2e-");
  const binaries = join(cache, "target", "debug");
  const server = join(cache, "tools", "bin", "veecle-telemetry-server");
  const log: string[] = [];
  const clients: ControlClient[] = [];
  const daemons: Daemon[] = [];
  let telemetryServer: Bun.Subprocess<"pipe", "ignore", "ignore"> | undefined;

  const start = async (name: string, telemetryPort: number): Promise<[Daemon, ControlClient]> => {
    const daemon = await startDaemon({
      control: { kind: "unix", path: join(folder, `${name}.socket`) },
      ipc: { kind: "tcp", host: "127.0.0.1", port: 0 },
      telemetry: { kind: "tcp", host: "127.0.0.1", port: telemetryPort },
      log: "warn",
      env: { ...process.env, XDG_RUNTIME_DIR: folder },
      writeLog: (line) => log.push(line),
    });
    daemons.push(daemon);
    const client = await ControlClient.connect(daemon.control);
    clients.push(client);
    return [daemon, client];
  };
  const info = async (client: ControlClient): Promise<Info> =>
    (await client.request({ kind: "Info" })) as Info;
  const link = (client: ControlClient, typeName: string, to: string): Promise<unknown> => {
    const target = parseTarget(to);
    if (target === undefined) throw new Error(`no target: ${to}`);
    return client.request({ kind: "Link", link: { from: undefined, typeName, to: target } });
  };

  beforeAll(async () => {
    mkdirSync(cache, { recursive: true });
    await run(
      [cargo ?? "cargo", "build", "--locked", "--manifest-path", join(crate, "Cargo.toml")],
      {
        CARGO_TARGET_DIR: join(cache, "target"),
      },
    );
    if (Bun.which(server) !== null) return;
    await run(
      [
        ...[cargo ?? "cargo", "install", "--locked", "--debug", "veecle-telemetry-server"],
        ...["--version", "0.1.0", "--root", join(cache, "tools")],
      ],
      { CARGO_TARGET_DIR: join(cache, "target-tools") },
    );
  }, BUILD_MS);

  afterAll(async () => {
    for (const client of clients) client.close();
    await Promise.all(daemons.map((daemon) => daemon.stop()));
    telemetryServer?.kill();
    rmSync(folder, { recursive: true, force: true });
  });

  test("ping_pong runs without an orchestrator", async () => {
    const child = Bun.spawn({ cmd: [join(binaries, "ping_pong")], stdout: "pipe" });
    let text = "";
    for await (const chunk of child.stdout) {
      text += Buffer.from(chunk).toString();
      if (text.includes("round 3")) break;
    }
    child.kill();
    expect(text).toContain("round 3");
  });

  test("ping and pong exchange every value in order, survive a kill, and show their spans", async () => {
    const port = freePort();
    const webSocketPort = freePort();
    telemetryServer = Bun.spawn({
      cmd: [
        ...[server, "--telemetry-socket", `127.0.0.1:${port}`],
        ...["--port", String(webSocketPort)],
      ],
      stdin: "pipe", // an end of input would mean that no more telemetry comes
      stdout: "ignore",
      stderr: "ignore",
    });
    const [a, onA] = await start("a", port);
    const [b, onB] = await start("b", port);
    const ping = newInstanceId();
    const pong = newInstanceId();
    await onA.request({ kind: "Add", id: ping, path: join(binaries, "ping"), settings: {} });
    expect(await onB.upload(pong, join(binaries, "pong"), {})).toBeGreaterThan(100_000);
    await link(onA, "veecle_os_examples::Ping", `127.0.0.1:${b.ipc?.port}`);
    await link(onB, "veecle_os_examples::Ping", pong);
    await link(onB, "veecle_os_examples::Pong", `127.0.0.1:${a.ipc?.port}`);
    await link(onA, "veecle_os_examples::Pong", ping);

    const follower = await ControlClient.connect(a.control);
    clients.push(follower);
    const output = follower.follow(ping);
    await output.ready;
    const rounds: number[] = [];
    const complaints: string[] = [];
    const reading = (async () => {
      for await (const line of output) {
        const text = Buffer.from(line).toString();
        const round = /^ping: round ([0-9]+)$/.exec(text)?.[1];
        if (round !== undefined) rounds.push(Number(round));
        else if (text.includes("out of order")) complaints.push(text);
      }
    })();
    const reach = (count: number): Promise<true> =>
      until(`${count} rounds`, () => (rounds.length >= count ? true : undefined));

    await onB.request({ kind: "Start", id: pong, priority: undefined });
    await onA.request({ kind: "Start", id: ping, priority: undefined });
    await reach(100);
    expect(await spans(webSocketPort, ["round", "answer"])).toEqual(["answer", "round"]);

    const before = (await info(onB)).runtimes[pong];
    process.kill(before?.pid as number, "SIGKILL");
    const killed = await until("pong listed as killed", async () => {
      const runtime = (await info(onB)).runtimes[pong];
      return runtime?.running === false ? runtime : undefined;
    });
    expect(killed.exit).toEqual({ signal: "SIGKILL" });
    const atKill = rounds.length;
    await onB.request({ kind: "Start", id: pong, priority: undefined });
    await reach(atKill + 100);

    await onB.request({ kind: "Stop", id: pong });
    await onB.request({ kind: "Remove", id: pong });
    const [infoA, infoB] = [await info(onA), await info(onB)];
    expect(Object.keys(infoB.runtimes)).toEqual([]);
    expect(infoB.routes.map((route) => route.to)).toEqual([`127.0.0.1:${a.ipc?.port}`]);
    expect(infoA.runtimes[ping]).toMatchObject({ running: true, connected: true, exit: null });
    for (const route of [...infoA.routes, ...infoB.routes]) {
      const dropped = Object.values(route.dropped).reduce((sum, count) => sum + count, 0);
      expect(route.routed).toBe(route.delivered + dropped + route.queued);
    }
    expect(complaints).toEqual([]);
    expect(rounds).toEqual(rounds.map((_, index) => index));

    await onA.request({ kind: "Clear" });
    await reading;
  }, 60_000);
});

/** Reads the telemetry server's WebSocket until spans of all `names` were seen; returns those names. */
function spans(port: number, names: string[]): Promise<string[]> {
  const seen = new Set<string>();
  const { promise, resolve, reject } = Promise.withResolvers<string[]>();
  const socket = new WebSocket(`ws://127.0.0.1:${port}`);
  const timer = setTimeout(() => reject(new Error(`only saw spans of ${[...seen]}`)), 20_000);
  socket.onmessage = ({ data }) => {
    for (const line of JSON.parse(String(data)).lines) {
      const name = JSON.parse(line).message?.Tracing?.CreateSpan?.name;
      if (names.includes(name)) seen.add(name);
    }
    if (seen.size < names.length) return;
    clearTimeout(timer);
    socket.close();
    resolve([...seen].sort());
  };
  socket.onerror = () => reject(new Error("the telemetry server's WebSocket failed"));
  return promise;
}
