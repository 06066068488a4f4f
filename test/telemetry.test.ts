// The exporter on connections that are handed to it, with timers that fire when they are told to.

import { expect, test } from "bun:test";

import { RECONNECT_MAX_MS, RECONNECT_MIN_MS } from "../src/limits.ts";
import { TargetLog } from "../src/log.ts";
import type { Connection, StreamHandlers } from "../src/socket.ts";
import { TelemetryExporter } from "../src/telemetry.ts";

/** An exporter with a line to send, its server, and the timers that it has set. */
function world() {
  const timers = new Map<() => void, number>();
  let accept!: (connection: Connection) => StreamHandlers;
  const exporter = new TelemetryExporter({
    address: { kind: "tcp", host: "127.0.0.1", port: 1 },
    connect: async (_address, accepts) => void (accept = accepts),
    after: (ms, action) => {
      timers.set(action, ms);
      return () => timers.delete(action);
    },
    log: new TargetLog([], () => {}),
  });
  const line = Buffer.from('{"a":1}');
  exporter.push(line, 0, line.length);
  exporter.flush();
  const none = (): void => {};
  const asked: string[] = [];
  const ask = (what: string) => () => void asked.push(what);
  const connection = { peer: "server", pause: none, resume: none };
  const [finish, close] = [ask("finish"), ask("close")];
  const write = (): number => {
    asked.push("write");
    return 0;
  };
  return {
    exporter,
    open: (): StreamHandlers => accept({ ...connection, finish, close, write }),
    /** What was asked of its connections. */
    asked,
    /** What it waits for, in ms. */
    waits: (): number[] => [...timers.values()],
    fire: (): void => {
      for (const action of [...timers.keys()]) {
        timers.delete(action);
        action();
      }
    },
  };
}

test("TelemetryExporter asks a server that ends every connection less and less often", () => {
  const { open, waits, fire } = world();
  const pauses: number[] = [];
  for (let i = 0; i < 8; i++) {
    open().close();
    pauses.push(...waits());
    fire();
  }
  expect(pauses).toEqual([100, 200, 400, 800, 1600, 3200, 5000, 5000]);
});

test("TelemetryExporter is soon back at a server that has kept a connection for a while", () => {
  const { open, waits, fire } = world();
  open().close();
  fire();
  const { close } = open();
  expect(waits()).toEqual([RECONNECT_MAX_MS]);
  fire();
  close();
  expect(waits()).toEqual([RECONNECT_MIN_MS]);
});

test("TelemetryExporter.close() ends a connection that comes too late, and sends nothing on it", async () => {
  const { exporter, open, asked, waits, fire } = world();
  const closed = exporter.close(100);
  fire();
  await closed;
  const { close } = open();
  expect(asked).toEqual(["close"]);
  close();
  expect(waits()).toEqual([]);
  expect(exporter.queued).toBe(1);
});
