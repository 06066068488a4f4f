// Whom the control server lets in where there is little room.

import { expect, test } from "bun:test";

import { ControlServer, type ControlOptions } from "../../src/control.ts";
import { MAX_ADDRESS_CONNECTIONS } from "../../src/limits.ts";
import type { Connection } from "../../src/socket.ts";

test("a machine that has all the connections it may have displaces nobody (R25)", () => {
  const closed: string[] = [];
  const connect = (address: string, descriptor: number): Connection => ({
    origin: { kind: "tcp", local: { address: "", port: 1 }, remote: { address, port: 2 } },
    descriptor,
    peer: address,
    write: (bytes) => bytes.length,
    finish: () => closed.push(address),
    close: () => closed.push(address),
    pause: () => {},
    resume: () => {},
  });
  const server = new ControlServer({
    maxDescriptor: 100,
    access: { judge: () => ({ kind: "served", by: "test" }) },
    log: { debug: () => {}, warn: () => {} },
    after: () => () => {},
    now: () => 0,
    onFault: (error: unknown) => {
      throw error;
    },
  } as unknown as ControlOptions);
  server.accept(connect("192.0.2.1", 10));
  for (let i = 0; i < MAX_ADDRESS_CONNECTIONS; i++) server.accept(connect("192.0.2.2", 11));
  server.accept(connect("192.0.2.2", 100)); // descriptors are scarce
  expect(closed).toEqual(["192.0.2.2"]);
});
