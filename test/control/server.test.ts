// Whom the control server lets in where there is little room.

import { expect, test } from "bun:test";

import type { Verdict } from "../../src/control/access.ts";
import { ControlServer, type ControlOptions } from "../../src/control.ts";
import { OrchestratorError } from "../../src/errors.ts";
import { MAX_ADDRESS_CONNECTIONS, MAX_CONTROL_CONNECTIONS } from "../../src/limits.ts";
import type { Connection } from "../../src/socket.ts";

const SERVED: Verdict = { kind: "served", by: "test" };
const REFUSED: Verdict = {
  kind: "refused",
  by: "test",
  error: new OrchestratorError("permission_denied", "Cannot serve this connection: a stranger"),
};

/** A server, and who was sent away by it, each with the beginning of what was said to them. */
function newServer(judge: (address: string) => Verdict | Promise<Verdict>) {
  const closed: string[] = [];
  const server = new ControlServer({
    maxDescriptor: 100,
    access: {
      judge: (origin: Extract<Connection["origin"], { kind: "tcp" }>) =>
        judge(origin.remote.address),
    },
    log: { debug: () => {}, warn: () => {} },
    after: () => () => {},
    now: () => 0,
    onFault: (error: unknown) => {
      throw error;
    },
  } as unknown as ControlOptions);
  const connect = (address: string, descriptor: number = 10): void => {
    let said = "";
    const close = (): void => {
      const limit = /(\d+|file descriptors)( are open| are left)|a stranger/.exec(said)?.[0];
      closed.push(limit === undefined ? address : `${address}: ${limit}`);
    };
    server.accept({
      origin: { kind: "tcp", local: { address: "", port: 1 }, remote: { address, port: 2 } },
      descriptor,
      peer: address,
      write: (bytes) => {
        said += Buffer.from(bytes).toString();
        return bytes.length;
      },
      finish: close,
      close,
      pause: () => {},
      resume: () => {},
    });
  };
  return { connect, closed };
}

test("a machine that has all the connections it may have displaces nobody (R25)", () => {
  const { connect, closed } = newServer(() => SERVED);
  connect("192.0.2.1");
  for (let i = 0; i < MAX_ADDRESS_CONNECTIONS; i++) connect("192.0.2.2", 11);
  connect("192.0.2.2", 100); // descriptors are scarce
  expect(closed).toEqual([`192.0.2.2: ${MAX_ADDRESS_CONNECTIONS} are open`]);
});

test("who is not served displaces nobody, whenever that is known (R25)", async () => {
  const verdicts: PromiseWithResolvers<Verdict>[] = [];
  const { connect, closed } = newServer((address) => {
    if (address === "::1") return SERVED;
    if (address !== "127.0.0.1") return REFUSED;
    verdicts.push(Promise.withResolvers<Verdict>());
    return (verdicts.at(-1) as PromiseWithResolvers<Verdict>).promise;
  });
  for (let i = 0; i < MAX_CONTROL_CONNECTIONS; i++) connect("::1");
  connect("192.0.2.1");
  expect(closed).toEqual(["192.0.2.1: a stranger"]);
  for (let i = 0; i < 3; i++) connect("127.0.0.1");
  expect(closed).toHaveLength(1); // it is not known yet
  for (const { resolve } of verdicts) resolve(REFUSED);
  await Promise.all(verdicts.map(({ promise }) => promise));
  await Bun.sleep(0);
  expect(closed.slice(1)).toEqual(Array(3).fill("127.0.0.1: a stranger"));

  // Who is served does; beyond those who can be displaced, nobody is kept waiting for a verdict.
  for (let i = 0; i <= MAX_CONTROL_CONNECTIONS; i++) connect("127.0.0.1");
  expect(closed.slice(4)).toEqual([`127.0.0.1: ${MAX_CONTROL_CONNECTIONS} are open`]);
  verdicts[3]?.resolve(SERVED);
  await Bun.sleep(0);
  expect(closed.slice(5)).toEqual([`::1: ${MAX_CONTROL_CONNECTIONS} are open`]);
});

test("who is judged while descriptors are scarce holds few of them (R26)", async () => {
  const { connect, closed } = newServer((address) =>
    address === "::1" ? SERVED : Promise.withResolvers<Verdict>().promise,
  );
  for (let i = 0; i < 40; i++) connect("::1");
  for (let descriptor = 100; descriptor < 140; descriptor++) connect("127.0.0.1", descriptor);
  expect(closed).toEqual(Array(40 - 16).fill("127.0.0.1: file descriptors are left"));
});
