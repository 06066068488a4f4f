// Of which other orchestrators it is known that nobody listens there, and for how long.

import { beforeEach, expect, test } from "bun:test";

import type { Journal } from "../src/journal.ts";
import { Links } from "../src/links.ts";
import type { Memory } from "../src/memory.ts";
import { decodeDatagram, NO_REST } from "../src/message.ts";
import { Translator } from "../src/message/translate.ts";
import { type LinkKey, parseTarget, type LinkTarget } from "../src/model.ts";
import type { PeerInfo } from "../src/protocol/info.ts";
import { Router, Source } from "../src/router.ts";

const A = "127.0.0.1:1001";
const B = "127.0.0.1:1002";
const NEVER: PeerInfo = { heard: null, refused: null, suspected: null };

let nowMs: number;
let router: Router;
let links: Links;
let source: Source;

beforeEach(() => {
  nowMs = 1_000_000;
  router = new Router();
  source = new Source(undefined);
  links = new Links({
    router,
    memory: { change() {}, forget() {} } as unknown as Memory,
    journal: { record() {} } as unknown as Journal,
    translator: new Translator(),
    findTarget: () => undefined,
    wallMs: () => nowMs,
  });
  links.useSocket({
    address: { kind: "tcp", host: "127.0.0.1", port: 1000 },
    send: () => "sent",
    close() {},
  });
});

function link(to: string): LinkKey {
  const key = { typeName: "T", from: undefined, to: parseTarget(to) as LinkTarget };
  links.add(key);
  return key;
}

function send(): void {
  const { type, line } = decodeDatagram(Buffer.from('{"type_name":"T","value":"1"}'));
  const run = { dialect: "veecle", type, chunk: line, start: 0, end: line.length } as const;
  router.route(source, { ...run, rest: NO_REST, count: 1, longest: line.length });
}

function known(of: string): PeerInfo | undefined {
  return links.info().find(({ to }) => to === of)?.peer;
}

test("A report is about the only one that something was sent to", () => {
  link(A);
  links.foundNobody();
  expect(known(A)).toEqual(NEVER);
  send();
  links.foundNobody();
  expect(known(A)).toEqual({ ...NEVER, refused: nowMs });
});

test("A report may be about one to which no link leads any more", () => {
  const [key] = [link(A), link(B)];
  send();
  links.remove(key);
  links.foundNobody();
  expect(known(B)).toEqual({ ...NEVER, suspected: nowMs });
  nowMs += 6_000;
  send();
  links.foundNobody();
  expect(known(B)?.refused).toBe(nowMs);
});

test("A report is forgotten when what is sent after it is not reported", () => {
  link(A);
  send();
  links.foundNobody();
  const told = { ...NEVER, refused: nowMs };
  nowMs += 60_000;
  expect(known(A)).toEqual(told); // nothing was sent since
  send();
  nowMs += 5_000;
  send();
  expect(known(A)).toEqual(told);
  nowMs += 1;
  send();
  expect(known(A)).toEqual(NEVER);
  links.foundNobody();
  expect(known(A)).toEqual({ ...NEVER, refused: nowMs });
});
