// Telemetry: what the server gets, byte for byte, and what its weaknesses cost: never a message.

import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { badServer, SERVER_VICES } from "../experiments/exporter.ts";
import { misses } from "../experiments/outcome.ts";
import type { Puppet } from "../fixtures/stage.ts";
import { type Daemon, withDaemon } from "../support/daemon.ts";
import {
  DIALECTS,
  type Dialect,
  KIND,
  native,
  storable,
  until,
  type Wire,
  wireHandlers,
} from "../support/wire.ts";

setDefaultTimeout(60_000);

/** A telemetry server that a test can stop, start again on its port, and make slow. */
class Server {
  readonly port: number;
  readonly connections: Wire[] = [];
  onConnection: (wire: Wire) => void = () => {};
  #listener: Bun.TCPSocketListener<{ wire: Wire }> | undefined;

  constructor() {
    this.port = this.start();
  }

  start(): number {
    this.#listener = Bun.listen<{ wire: Wire }>({
      hostname: "127.0.0.1",
      port: this.port ?? 0,
      socket: wireHandlers((wire) => {
        this.connections.push(wire);
        this.onConnection(wire);
      }),
    });
    return this.#listener.port;
  }

  stop(): void {
    this.#listener?.stop(true);
    this.#listener = undefined;
  }

  async connection(index: number = 0): Promise<Wire> {
    return until(`connection ${index} is made`, () => this.connections[index]);
  }
}

/** Runs a daemon that exports to a server, with an instance that is connected to it. */
async function withServer(
  body: (context: { daemon: Daemon; server: Server; puppet: Puppet; wire: Wire }) => Promise<void>,
): Promise<void> {
  const server = new Server();
  try {
    await withDaemon(
      async (daemon) => {
        const puppet = await daemon.puppet();
        const wire = await puppet.connect();
        await body({ daemon, server, puppet, wire });
        server.stop(); // its connection is no leftover of the daemon
      },
      { args: ["--telemetry-socket", `127.0.0.1:${server.port}`] },
    );
  } finally {
    server.stop();
  }
}

function telemetry(dialect: Dialect, json: string): Buffer {
  if (dialect === "native") return native(KIND.telemetry, "", json);
  return Buffer.from(`{"Telemetry":${json}}\n`);
}

/** One numbered line of about 1 KiB. */
function numbered(n: number): string {
  return `{"thread_id":"t","message":{"n":${n},"text":"${"x".repeat(1_000)}"}}`;
}

/** The number of a line, which must be whole. */
function numberOf(line: string): number {
  const { n } = JSON.parse(line).message;
  expect(line).toBe(numbered(n));
  return n;
}

/** Sends 500 more numbered lines; returns what became of all, with their number. */
async function sendMore(
  daemon: Daemon,
  wire: Wire,
  from: number,
): Promise<{ total: number; dropped: number; queued: number }> {
  const total = from + 500;
  for (let i = from; i < total; i++) wire.send(telemetry("veecle", numbered(i)));
  return until("all are accounted for", async () => {
    const { telemetry } = await daemon.info();
    if (telemetry === null) throw new Error("There are no accounts of telemetry");
    const isRead = telemetry.sent + telemetry.queued + telemetry.dropped === total;
    return isRead && { ...telemetry, total };
  });
}

/** Sends numbered lines until the server and the kernel take no more; returns how many. */
async function sendUntilStuck(daemon: Daemon, wire: Wire, from: number = 0): Promise<number> {
  let { total, queued } = await sendMore(daemon, wire, from);
  while (queued < 1_000) ({ total, queued } = await sendMore(daemon, wire, total));
  return total;
}

/** Every line is sent, dropped or queued. */
async function expectAccounts(daemon: Daemon, total: number): Promise<{ dropped: number }> {
  const { telemetry } = await daemon.info();
  if (telemetry === null) throw new Error("There are no accounts of telemetry");
  expect(telemetry.sent + telemetry.dropped + telemetry.queued).toBe(total);
  return telemetry;
}

const OBJECTS = [
  '{"thread_id":"a","message":{"Log":{"time":170141183460469231731687303715884105727}}}',
  '{"big":123456789012345678901234567890123456789,"small":-0.0,"e":1.50E+005}',
  '{ "spaces" : [ 1 , 2 ] , "escapes":"\\u0041\\/\\u00fc\\ud83e\\udd80 ü🦀" }',
  '{"__proto__":{"a":1},"dup":1,"dup":2}',
  '{"s":"}}","t":"{\\"Telemetry\\":{}}"}',
  "{}",
];

describe.each(DIALECTS)("From an instance of the %s dialect", (dialect) => {
  test("the server gets the object byte for byte, one on a line (P-43)", () =>
    withServer(async ({ daemon, server, wire }) => {
      for (const object of OBJECTS) wire.send(telemetry(dialect, object));
      const connection = await server.connection();
      for (const object of OBJECTS) expect(await connection.line()).toBe(object);
      await until("it is counted", async () => {
        return (await daemon.info()).telemetry?.sent === OBJECTS.length;
      });
      expect(server.connections).toHaveLength(1);
    }));

  test("messages between telemetry arrive as if there were none (P-45)", () =>
    withServer(async ({ daemon, puppet, server, wire }) => {
      await daemon.link("T", puppet.id);
      for (let i = 0; i < 5_000; i++) {
        wire.send(telemetry(dialect, numbered(i)));
        if (i % 10 === 0)
          wire.send(dialect === "native" ? native(KIND.data, "T", `${i}`) : storable("T", `${i}`));
      }
      const connection = await server.connection();
      for (let i = 0; i < 5_000; i++) {
        expect(numberOf(await connection.line())).toBe(i);
        if (i % 10 !== 0) continue;
        if (dialect === "veecle") expect(await wire.line()).toBe(storable("T", `${i}`).trimEnd());
        else expect((await wire.frame()).toString("utf8", 5)).toBe(`${i}`);
      }
    }));
});

test("A line in another legal JSON form gives the same object (P-26)", () =>
  withServer(async ({ server, wire }) => {
    wire.send('{"Telemetry":{"n":123456789012345678901234567890123456789}} \r\n');
    wire.send(' { "Telemetry" : {"n": 123456789012345678901234567890123456789 } }\n');
    wire.send('{"\\u0054elemetry":{"n":1.0}}\n');
    const connection = await server.connection();
    expect(await connection.line()).toBe('{"n":123456789012345678901234567890123456789}');
    expect(await connection.line()).toBe('{"n": 123456789012345678901234567890123456789 }');
    expect(await connection.line()).toBe('{"n":1.0}');
  }));

test("A native object that is spread over lines becomes one line", () =>
  withServer(async ({ server, wire }) => {
    wire.send(telemetry("native", '{\n  "n": 1.0,\r\n  "text": "a\\nb"\n}'));
    wire.send(telemetry("native", '{"n":2}'));
    const connection = await server.connection();
    const line = await connection.line();
    expect(JSON.parse(line)).toEqual({ n: 1, text: "a\nb" });
    expect(line).toContain('"n": 1.0');
    expect(await connection.line()).toBe('{"n":2}');
  }));

test("Telemetry that is not UTF-8 ends its connection, and the server sees nothing of it (P-43)", () =>
  withServer(async ({ server, puppet, wire }) => {
    wire.send(telemetry("veecle", '{"n":1}'));
    wire.send(Buffer.from('{"Telemetry":{"n":"\xff"}}\n', "latin1"));
    await wire.rest();
    const again = await puppet.connect();
    again.send(telemetry("veecle", '{"n":2}'));
    const connection = await server.connection();
    expect(await connection.line()).toBe('{"n":1}');
    expect(await connection.line()).toBe('{"n":2}');
  }));

test("No connection is made before there is something to send (P-44)", () =>
  withServer(async ({ daemon, puppet, server, wire }) => {
    await daemon.link("T", puppet.id);
    wire.send(storable("T", "x"));
    await wire.line();
    expect(server.connections).toHaveLength(0);
    expect((await daemon.info()).telemetry).toEqual({ sent: 0, dropped: 0, queued: 0 });
  }));

test("Without a server telemetry is read and forgotten", () =>
  withDaemon(async (daemon) => {
    const puppet = await daemon.puppet();
    await daemon.link("T", puppet.id);
    const wire = await puppet.connect();
    wire.send(Buffer.concat([telemetry("veecle", numbered(1)), Buffer.from(storable("T", "x"))]));
    expect(await wire.line()).toBe(storable("T", "x").trimEnd());
    expect((await daemon.info()).telemetry).toBeNull();
  }));

describe("A server", () => {
  test("that is down at first gets everything from the first line on", () =>
    withServer(async ({ daemon, server, wire }) => {
      server.stop();
      for (let i = 0; i < 500; i++) wire.send(telemetry("veecle", numbered(i)));
      await daemon.logged(/cannot reach the telemetry server, will try again/);
      expect((await daemon.info()).telemetry).toMatchObject({ sent: 0, dropped: 0 });
      server.start();
      const connection = await server.connection();
      for (let i = 0; i < 500; i++) expect(numberOf(await connection.line())).toBe(i);
      await expectAccounts(daemon, 500);
    }));

  test("that is lost and comes back never gets half a line first (P-44)", () =>
    withServer(async ({ daemon, server, wire }) => {
      let total = 0;
      let last = -1;
      const next = async (connection: Wire): Promise<void> => {
        const n = numberOf(await connection.line());
        expect(n).toBeGreaterThan(last); // what a kernel had taken is lost, nothing comes twice
        last = n;
      };
      for (let round = 0; round < 5; round++) {
        for (let i = 0; i < 200; i++) wire.send(telemetry("veecle", numbered(total++)));
        const connection = await server.connection(round);
        for (let i = 0; i < 100; i++) await next(connection);
        connection.pause(); // until the daemon is stuck, within a line as a rule
        total = await sendUntilStuck(daemon, wire, total);
        connection.close();
      }
      const connection = await server.connection(5);
      while (last < total - 1) await next(connection);
      await expectAccounts(daemon, total);
    }));

  // R23: memory is bounded, the newest lines are kept, all are accounted for, never half a line.
  test.each(SERVER_VICES)("that is %s costs lines, and no message a delay (P-45)", async (vice) => {
    const size = { linesPerSecond: 10_000, bytesPerLine: 1_000, rounds: 5, ms: 100 };
    expect(misses(await badServer(vice, size), "sane")).toEqual([]);
  });

  test("that resets every connection disturbs nobody", () =>
    withServer(async ({ daemon, puppet, server, wire }) => {
      server.onConnection = (connection) => connection.close();
      await daemon.link("T", puppet.id);
      for (let i = 0; server.connections.length < 3; i++) {
        wire.send(
          Buffer.concat([telemetry("veecle", numbered(i)), Buffer.from(storable("T", "x"))]),
        );
        expect(await wire.line()).toBe(storable("T", "x").trimEnd());
      }
      server.onConnection = () => {};
      const count = server.connections.length;
      for (let i = 0; (server.connections[count]?.unreadBytes ?? 0) === 0; i++) {
        wire.send(telemetry("veecle", numbered(i)));
        await Bun.sleep(5);
      }
      numberOf(await (await server.connection(count)).line());
    }));

  test("gets what is queued when the daemon is told to end", () =>
    withServer(async ({ daemon, server, wire }) => {
      server.onConnection = (connection) => connection.pause();
      const total = await sendUntilStuck(daemon, wire);
      const connection = await server.connection();
      daemon.signal("SIGTERM");
      connection.resume();
      const lines = (await connection.rest()).toString().split("\n"); // read first, look later
      expect(lines.pop()).toBe("");
      expect(lines.map(numberOf)).toEqual(Array.from({ length: total }, (_, i) => i));
      expect(await daemon.exit()).toBe(0);
    }));

  test("that is stuck does not keep the daemon from ending", () =>
    withServer(async ({ daemon, server, wire }) => {
      server.onConnection = (connection) => connection.pause();
      await sendUntilStuck(daemon, wire);
      daemon.signal("SIGTERM");
      expect(await daemon.exit()).toBe(0);
      expect(daemon.log).toMatch(/telemetry was not sent before the end lines=\d+/);
    }));
});
