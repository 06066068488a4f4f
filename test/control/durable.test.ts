// Answers to changes while the disk takes its time, or refuses.

import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { ControlConnection } from "../../src/control/connection.ts";
import { Log, parseLogFilter } from "../../src/log.ts";
import { Orchestrator } from "../../src/orchestrator.ts";
import type { Histories } from "../../src/output/history.ts";
import { SpoolShare } from "../../src/output/spool.ts";
import { Store } from "../../src/store.ts";
import type { State } from "../../src/store/state.ts";
import type { FileSyncer } from "../../src/store/syncer.ts";
import { FakeHost } from "../support/host.ts";
import { idOf } from "../support/registry.ts";
import { until } from "../support/wire.ts";

/** A disk that does what it is told, when it is told. */
class Disk implements FileSyncer {
  readonly #asked: { resolve(): void; reject(error: Error): void }[] = [];

  sync(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#asked.push({ resolve, reject });
    return promise;
  }

  syncNow(): void {}

  close(): void {}

  get waiting(): number {
    return this.#asked.length;
  }

  /** What was asked first, so often. */
  write(count: number = Infinity): void {
    for (const { resolve } of this.#asked.splice(0, count)) resolve();
  }

  refuse(count: number = Infinity): void {
    for (const { reject } of this.#asked.splice(0, count)) {
      reject(Object.assign(new Error("EIO: i/o error, fdatasync"), { code: "EIO" }));
    }
  }
}

const quiet = new Log(
  parseLogFilter("off"),
  () => {},
  () => 0,
);

let folder: string;
let disk: Disk;
let store: Store;
let orchestrator: Orchestrator;
/** Of each collection of uploaded programs, what was kept. */
let collected: string[];

const fail = (error: unknown): never => {
  throw error;
};

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vo-durable-"));
  disk = new Disk();
  collected = [];
  store = Store.open(join(folder, "state.db"), { openSyncer: () => disk });
  const host = new FakeHost();
  const files = { append: async () => 0, rest: async () => {}, look: async () => {} };
  const spool = { files, share: new SpoolShare(), onTrouble() {}, now: () => 0 };
  const binaries = {
    collect: (used: ReadonlySet<string>) => collected.push([...used].toSorted().join("")),
  };
  orchestrator = new Orchestrator({
    host,
    log: quiet,
    state: { store, binaries: binaries as unknown as State["binaries"] },
    env: {},
    openSocket: (id) => ({ path: `/run/${id}`, close() {} }),
    telemetry: undefined,
    histories: {
      open: () => ({ ...spool, after: () => () => {} }),
      remove: async () => {},
      sweep: async () => {},
    } as unknown as Histories,
    guard: { add() {}, remove() {} },
    newMark: () => "run.1",
    newCgroup: () => undefined,
    random: () => 0.5,
    onFault: fail,
  });
});

afterEach(() => {
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

/** A client in the dialect of lines; its answers as they come. */
class Client {
  answers: string[] = [];
  isEnded = false;
  #connection: ControlConnection;

  constructor() {
    const connection = {
      peer: "test",
      write: (bytes: Uint8Array) => {
        this.answers.push(...Buffer.from(bytes).toString().trimEnd().split("\n"));
        return bytes.length;
      },
      finish: () => void (this.isEnded = true),
      close: () => void (this.isEnded = true),
      pause() {},
      resume() {},
    };
    const options = {
      orchestrator,
      log: quiet.target("control"),
      audit: quiet.target("audit"),
      binaries: {} as unknown as State["binaries"],
      after: (ms: number, action: () => void) => {
        const timer = setTimeout(action, ms);
        return () => clearTimeout(timer);
      },
      now: () => performance.now(),
      onFault: fail,
    };
    this.#connection = new ControlConnection(options, connection, 1, { kind: "served", by: "me" });
  }

  ask(...requests: unknown[]): void {
    const lines = requests.map((request) => `${JSON.stringify(request)}\n`);
    this.#connection.receive(Buffer.from(lines.join("")));
  }

  end(): void {
    this.#connection.endInput();
  }

  /** Answers once there are so many. */
  async come(count: number): Promise<string[]> {
    await until(`${count} answers`, () => this.answers.length >= count);
    return this.answers;
  }
}

const add = (n: number): unknown => ({ Add: { id: idOf(n), path: `/bin/program-${n}` } });
const OK = '{"Ok":null}';

test("A change is answered when the disk has it; others are served meanwhile (P-49)", async () => {
  const [client, other] = [new Client(), new Client()];
  client.ask(add(1), "Version");
  await until("the disk is asked", () => disk.waiting > 0);
  other.ask("Info");
  expect((await other.come(1))[0]).toContain("/bin/program-1");
  client.ask(add(1), "Version");
  other.ask(add(2));
  await until("the instance is there", () => store.load().instances.length === 2);
  expect(client.answers).toEqual([]);
  expect(other.answers).toHaveLength(1);
  expect(disk.waiting).toBe(2);
  disk.write(1);
  expect((await client.come(2)).slice(0, 2)).toEqual([OK, '{"Ok":"0.1.0"}']);
  // What came later was refused, which promises nothing, and waits for its turn only.
  expect(JSON.parse((await client.come(4))[2] as string).Err[0]).toContain("Cannot add instance");
  expect(client.answers[3]).toBe('{"Ok":"0.1.0"}');
  expect(other.answers).toHaveLength(1);
  disk.write();
  expect((await other.come(2))[1]).toBe(OK);
});

test("A client that ends its side while the disk takes its time still gets its answers (P-10)", async () => {
  const client = new Client();
  client.ask(add(1), add(2));
  client.end();
  await until("the disk is asked", () => disk.waiting > 0);
  expect([client.answers, client.isEnded]).toEqual([[], false]);
  disk.write();
  expect(await client.come(2)).toEqual([OK, OK]);
  await until("the connection is ended", () => client.isEnded);
});

test("However many changes a client sends to a disk that stalls, few wait", async () => {
  const client = new Client();
  client.ask(...Array.from({ length: 2_000 }, (_, n) => add(n % 700)));
  await until("the disk is asked", () => disk.waiting > 0);
  let before = -1;
  await until("no more is carried out", () => {
    const now = store.load().instances.length;
    const isSteady = now === before;
    before = now;
    return isSteady;
  });
  expect(before).toBeLessThan(300);
  const written = setInterval(() => disk.write(), 1);
  expect(await client.come(2_000)).toHaveLength(2_000);
  clearInterval(written);

  expect(client.answers.filter((answer) => answer === OK)).toHaveLength(700);
});

test("A disk that does not confirm a change is told of, and tried by another way (R1)", async () => {
  const client = new Client();
  client.ask(add(1));
  await until("the disk is asked", () => disk.waiting > 0);
  disk.refuse();
  const [answer] = await client.come(1);
  expect(JSON.parse(answer as string).Err.slice(0, 1)).toEqual([
    "The disk does not confirm the change: it holds, and may be forgotten when the machine stops",
  ]);
  expect(answer).toContain("EIO");
  // The log of the database is not trusted any more: the next change brings all into the file.
  client.ask(add(2));
  expect((await client.come(2))[1]).toBe(OK);
  expect(disk.waiting).toBe(0);
  client.ask(add(3));
  await until("the disk is asked as ever", () => disk.waiting > 0);
  disk.write();
  expect((await client.come(3))[2]).toBe(OK);
});

test("A change on its way while an earlier one is refused is not trusted either (R1)", async () => {
  const [client, other] = [new Client(), new Client()];
  client.ask(add(1));
  await until("the disk is asked", () => disk.waiting === 1);
  other.ask(add(2));
  await until("the disk is asked twice", () => disk.waiting === 2);
  expect(statSync(join(folder, "state.db-wal")).size).toBeGreaterThan(0);
  disk.refuse(1);
  disk.write();
  expect((await other.come(1))[0]).toBe(OK);
  expect(statSync(join(folder, "state.db-wal")).size).toBe(0); // all is in the file
});

test("A removal that the disk does not confirm is told of as well (R1)", async () => {
  const client = new Client();
  const link = { type_name: "T", to: idOf(1) };
  client.ask(add(1), { Link: link });
  await until("the disk is asked", () => disk.waiting > 0);
  disk.write();
  await client.come(2);
  // Each on its own, and the one after it brings all into the file again.
  for (const [i, request] of [{ Unlink: link }, { Remove: idOf(1) }, "Clear"].entries()) {
    client.ask(request);
    await until("the disk is asked", () => disk.waiting > 0);
    disk.refuse();
    const answers = await client.come(2 * i + 3);
    expect(answers.at(-1)).toContain("The disk does not confirm the change: it holds");
    client.ask(add(10 + i));
    expect((await client.come(2 * i + 4)).at(-1)).toBe(OK);
  }
});

/** Registers instances with uploaded programs, called by one letter each; the disk knows of them. */
async function addUploaded(names: string): Promise<void> {
  for (const [n, hash] of [...names].entries()) {
    orchestrator.add(idOf(n), "/state/binary", {}, { hash, bytes: 1, origin: hash });
  }
  const durable = orchestrator.commit();
  await until("the disk is asked", () => disk.waiting > 0);
  disk.write();
  await durable;
}

test("An uploaded program goes when the disk knows that its own instance is gone (R1)", async () => {
  await addUploaded("abc");
  orchestrator.remove(idOf(0));
  await until("the disk is asked", () => disk.waiting === 1);
  orchestrator.remove(idOf(1));
  await until("the disk is asked again", () => disk.waiting === 2);
  disk.write(1);
  await until("one is collected", () => collected.length > 0);
  expect(collected).toEqual(["bc"]);
  disk.write();
  await until("the other one is", () => collected.length > 1);
  expect(collected).toEqual(["bc", "c"]);
});

test("None goes as long as the disk does not confirm that (R1)", async () => {
  await addUploaded("abc");
  orchestrator.remove(idOf(0));
  await until("the disk is asked", () => disk.waiting > 0);
  disk.refuse();
  await orchestrator.collect();
  expect(collected).toEqual([]);
  orchestrator.remove(idOf(1)); // brings all into the file
  await until("what is left over is collected", () => collected.length > 0);
  expect(collected).toEqual(["c"]);
});

test("At a start none goes before the disk has what the daemon of before has left (R1)", async () => {
  orchestrator.restore([], []);
  await until("the disk is asked", () => disk.waiting > 0);
  expect(collected).toEqual([]);
  disk.write();
  await until("what nobody uses is collected", () => collected.length > 0);
});

test("A Clear of nothing shares no fate with the change that comes next", async () => {
  const batch = await orchestrator.clear();
  orchestrator.add(idOf(1), "/bin/program", {});
  expect(orchestrator.batch).not.toBe(batch);
  expect(orchestrator.batch.changes).toBe(1);
});
