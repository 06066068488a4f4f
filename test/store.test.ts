import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import {
  EVENT_PRUNE_COUNT,
  MAX_EVENT_AGE_MS,
  MAX_EVENT_BYTES,
  MAX_EVENTS,
  MAX_STATE_LOG_BYTES,
  STATE_LOG_BYTES,
} from "../src/limits.ts";
import { encodeInstance, encodeRow, type StoredEvent } from "../src/store/records.ts";
import { APPLICATION_ID, SCHEMA } from "../src/store/schema.ts";
import { DEFAULT_LINK_SETTINGS } from "../src/model.ts";
import { Store } from "../src/store.ts";
import { withoutPrivileges } from "./support/privileges.ts";
import { property } from "./support/random.ts";
import { refusal } from "./support/refusal.ts";
import { idOf, IDLE, plainInstance, plainLink, Registry } from "./support/registry.ts";

let folder: string;
let files = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "vo-store-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The path of a state of its own. */
function newPath(): string {
  return join(folder, String(files++));
}

const COMMITTER = join(import.meta.dir, "fixtures/committer.ts");
const NOW = 1_700_000_000_000;

function event(kind: string, time: number = NOW): Omit<StoredEvent, "seq"> {
  return { time, kind, id: null, name: null, detail: {} };
}

describe.each(["a file", ":memory:"])("Store in %s", (where) => {
  const open = (): Store => Store.open(where === ":memory:" ? where : newPath());

  test("holds nothing at first, and is not dirty", () => {
    const store = open();
    expect(store.load()).toEqual({ instances: [], links: [] });
    expect(store.events()).toEqual([]);
    expect(store.get("any")).toBeUndefined();
    expect(store.isDirty).toBe(false);
    store.commit();
    store.close();
  });

  property("returns what was put into it, in the order in which it was added", 8, (random) => {
    const store = open();
    const registry = new Registry(random.seed);
    for (let i = 0; i < 30; i++) {
      for (const change of registry.next()) change(store);
      if (random.chance(0.3)) store.commit();
      expect(store.load()).toEqual(registry.registered);
    }
    store.close();
  });

  test("removeInstance() removes the links from it and to it, and no others", () => {
    const store = open();
    const [a, b] = [idOf(1), idOf(2)];
    store.putInstance(plainInstance(a));
    store.putInstance(plainInstance(b));
    const kept = [plainLink(undefined, "T", b), plainLink(b, "U", b)];
    const gone = [plainLink(a, "T", b), plainLink(b, "T", a), plainLink(undefined, "T", a)];
    for (const link of [...gone, ...kept]) store.putLink(link);
    store.removeInstance(a);
    expect(store.load()).toEqual({ instances: [plainInstance(b)], links: kept });
    store.close();
  });

  test("putStatus() of an instance that is gone changes nothing", () => {
    const store = open();
    store.putStatus(idOf(1), { ...IDLE, wanted: true });
    store.commit();
    expect(store.load().instances).toEqual([]);
    store.close();
  });

  test("clear() keeps events and facts", () => {
    const store = open();
    store.putInstance(plainInstance(idOf(1)));
    store.putLink(plainLink(undefined, "T", idOf(1)));
    store.addEvent(event("added"));
    store.set("mark", "m");
    store.clear();
    store.commit();
    expect(store.load()).toEqual({ instances: [], links: [] });
    expect(store.events()).toHaveLength(1);
    expect(store.get("mark")).toBe("m");
    store.close();
  });

  test("a removed id or name can be added again in the same transaction", () => {
    const store = open();
    store.putInstance(plainInstance(idOf(1), "same"));
    store.removeInstance(idOf(1));
    store.putInstance(plainInstance(idOf(2), "same"));
    store.putInstance(plainInstance(idOf(1), "other"));
    store.commit();
    expect(store.load().instances.map(({ settings }) => settings.name)).toEqual(["same", "other"]);
    store.close();
  });

  test("keeps text that JSON and SQL must escape, and makes it well-formed", () => {
    const store = open();
    store.set("key", "NUL \0, quote ', \ud800");
    store.putInstance({ ...plainInstance(idOf(1)), failed: "\0\ud800" });
    store.commit();
    expect(store.get("key")).toBe("NUL \0, quote ', \ufffd");
    expect(store.load().instances[0]?.failed).toBe("\0\ufffd");
    store.close();
  });

  test("a change that fails undoes all since the last commit, and commit() tells", () => {
    const store = open();
    store.set("before", "kept");
    store.commit();
    store.set("first", "undone");
    store.putInstance(plainInstance(idOf(1), "same"));
    store.putInstance(plainInstance(idOf(2), "same")); // names are unique: a defect of the caller
    store.set("after", "undone");
    expect(store.isDirty).toBe(true);
    expect(() => store.commit()).toThrow("UNIQUE constraint failed: instances.name");
    expect(store.isDirty).toBe(false);
    expect(["before", "first", "after"].map((key) => store.get(key))).toEqual([
      "kept",
      undefined,
      undefined,
    ]);
    store.set("next", "kept");
    store.commit();
    expect(store.get("next")).toBe("kept");
    store.close();
  });

  describe("events()", () => {
    test("tells those since a time, of an instance, after another, or the last ones", () => {
      const store = open();
      const seqs = [1, 2, 3, 4, 5, 6].map((i) =>
        store.addEvent({ ...event(`kind-${i}`, NOW + i), id: i % 2 === 0 ? idOf(7) : null }),
      );
      expect(seqs).toEqual([1, 2, 3, 4, 5, 6]);
      const kinds = (query: Parameters<Store["events"]>[0]): string =>
        store
          .events(query)
          .map(({ kind }) => kind.slice(-1))
          .join("");
      expect(kinds({})).toBe("123456");
      expect(kinds({ since: NOW + 3 })).toBe("3456");
      expect(kinds({ ids: [idOf(7)] })).toBe("246");
      expect(kinds({ ids: [] })).toBe("");
      expect(kinds({ until: NOW + 2 })).toBe("12");
      expect(kinds({ after: 4 })).toBe("56");
      expect(kinds({ last: 2 })).toBe("56");
      expect(kinds({ last: 0 })).toBe("");
      expect(kinds({ last: 1, ids: [idOf(7)], since: NOW + 2, after: 1 })).toBe("6");
      store.close();
    });

    test("keeps every part of an event", () => {
      const store = open();
      const whole = {
        time: NOW,
        kind: "exited",
        id: idOf(1),
        name: "ping",
        detail: { code: 3, cause: 'it "failed"\n', nested: { list: [1, null] } },
      };
      const seq = store.addEvent(whole);
      expect(store.events()).toEqual([{ seq, ...whole }]);
      store.close();
    });

    test("leaves out a detail that is too long", () => {
      const store = open();
      const fits = "x".repeat(MAX_EVENT_BYTES - '{"text":""}'.length);
      store.addEvent({ ...event("fits"), detail: { text: fits } });
      store.addEvent({ ...event("long"), detail: { text: `${fits}x` } });
      expect(store.events().map(({ detail }) => detail)).toEqual([
        { text: fits },
        { omittedBytes: MAX_EVENT_BYTES + 1 },
      ]);
      store.close();
    });

    test("are bounded in number, and counted on", () => {
      const store = open();
      const total = MAX_EVENTS + 2 * EVENT_PRUNE_COUNT;
      for (let i = 0; i < total; i++) store.addEvent(event("tick", NOW + i));
      store.commit();
      expect(store.events()).toHaveLength(MAX_EVENTS);
      expect(store.events({ last: total }).at(0)?.seq).toBe(total - MAX_EVENTS + 1);
      expect(store.addEvent(event("tick", NOW))).toBe(total + 1);
      store.close();
    });

    test("are bounded in number also where numbers were left out", () => {
      const store = open();
      for (let i = 0; i < 2 * EVENT_PRUNE_COUNT; i++) {
        if (i === EVENT_PRUNE_COUNT + 1) store.skipEvents();
        store.addEvent(event("tick", NOW + i));
      }
      const seqs = store.events({ last: MAX_EVENTS }).map(({ seq }) => seq);
      expect(seqs).toHaveLength(2 * EVENT_PRUNE_COUNT);
      expect(seqs[EVENT_PRUNE_COUNT + 1]).toBeGreaterThan(EVENT_PRUNE_COUNT + MAX_EVENTS);
      store.close();
    });

    test("are bounded in age, and counted on when all are too old", () => {
      const store = open();
      for (let i = 0; i < 5; i++) store.addEvent(event("old"));
      const seq = store.addEvent(event("new", NOW + MAX_EVENT_AGE_MS + 1));
      expect(store.events().map(({ kind }) => kind)).toEqual(["new"]);
      expect(seq).toBe(6);
      store.close();
    });
  });
});

describe("Store in a file", () => {
  test("gathers changes until commit(): another reader sees all or none", () => {
    const path = newPath();
    const [store, reader] = [Store.open(path), Store.open(path)];
    for (let i = 0; i < 100; i++) store.putInstance(plainInstance(idOf(i)));
    expect(store.isDirty).toBe(true);
    expect(reader.load().instances).toHaveLength(0);
    store.commit();
    expect(store.isDirty).toBe(false);
    expect(reader.load().instances).toHaveLength(100);
    reader.close();
    store.close();
  });

  test("close() commits, leaves one file, and everything is there after it is opened again", () => {
    const path = newPath();
    const registry = new Registry(1);
    let store = Store.open(path);
    for (let i = 0; i < 50; i++) for (const change of registry.next()) change(store);
    const events = store.events();
    store.close();
    expect(readdirSync(folder).filter((name) => join(folder, name).startsWith(path))).toEqual([
      path.slice(folder.length + 1),
    ]);
    store = Store.open(path);
    expect(store.load()).toEqual(registry.registered);
    expect(store.events()).toEqual(events);
    expect(store.get("batch")).toBe("50");
    expect(store.addEvent(event("next"))).toBe((events.at(-1)?.seq ?? 0) + 1);
    store.close();
  });

  test("its write-ahead log is bounded, also where the disk gives no time to move it", async () => {
    const path = newPath();
    const store = Store.open(path);
    const fill = async (count: number, after: () => Promise<void> | undefined): Promise<number> => {
      let largest = 0;
      for (let i = 0; i < count; i++) {
        store.putInstance({ ...plainInstance(idOf(i % 50)), failed: "x".repeat(9_000) });
        store.commit();
        await after();
        largest = Math.max(largest, statSync(`${path}-wal`).size);
      }
      return largest;
    };
    const [steady, stalled] = [
      await fill(100, () => store.sync()),
      await fill(600, () => undefined),
    ];
    console.log(steady, stalled);
    expect(steady).toBeGreaterThan(STATE_LOG_BYTES);
    expect(steady).toBeLessThan(STATE_LOG_BYTES * 3); // with the changes of a commit or two
    expect(stalled).toBeGreaterThan(MAX_STATE_LOG_BYTES / 2);
    expect(stalled).toBeLessThan(MAX_STATE_LOG_BYTES * 1.2);
    store.close();
  });

  test("another program that holds it locked costs one change, with a clear error", () => {
    const path = newPath();
    const [store, other] = [Store.open(path), Store.open(path)];
    other.set("theirs", "1");
    store.set("ours", "1");
    expect(refusal(() => store.commit())).toBe(
      `io: Cannot write the state in ${path}: another program has locked it`,
    );
    other.commit();
    store.set("ours", "2");
    store.commit();
    expect(store.get("ours")).toBe("2");
    other.close();
    store.close();
  });
});

describe("A state that loses its name while it is used", () => {
  const removed = (path: string): string =>
    `io: Cannot write the state in ${path}: it was removed or replaced while the daemon uses it; ` +
    "put it back, or start the daemon anew";

  test.each(["", "-wal"])("takes no change until its file%s is back", (suffix) => {
    const path = newPath();
    const store = Store.open(path);
    store.set("a", "1");
    store.commit();
    renameSync(path + suffix, `${path}.away`);
    store.set("a", "2");
    expect(refusal(() => store.commit())).toBe(removed(path));
    expect(store.get("a")).toBe("1");
    renameSync(`${path}.away`, path + suffix);
    store.set("a", "3");
    store.commit();
    store.close();
    const next = Store.open(path);
    expect(next.get("a")).toBe("3");
    next.close();
  });

  test("says that it has, and not where a folder only cannot be looked into", () => {
    const inner = newPath();
    mkdirSync(inner);
    const path = join(inner, "state.db");
    const store = Store.open(path);
    expect(store.lostFile).toBeUndefined();
    withoutPrivileges(inner, () => {
      expect(store.lostFile).toBeUndefined();
      store.set("a", "1");
      const reason = refusal(() => store.commit());
      expect(reason).toStartWith(`io: Cannot write the state in ${path}`);
      expect(reason).not.toContain("removed");
    });
    renameSync(inner, `${inner}.away`);
    expect(store.lostFile).toBe(path);
    writeFileSync(inner, "");
    expect(store.lostFile).toBe(path);
    store.set("a", "2");
    expect(refusal(() => store.commit())).toBe(removed(path));
    rmSync(inner);
    renameSync(`${inner}.away`, inner);
    expect(store.lostFile).toBeUndefined();
    store.close();
  });

  test("takes none beside another file of that name", () => {
    const path = newPath();
    const store = Store.open(path);
    for (const suffix of ["", "-wal", "-shm"]) renameSync(path + suffix, `${path}.away${suffix}`);
    const other = Store.open(path);
    store.set("a", "1");
    expect(refusal(() => store.commit())).toBe(removed(path));
    expect(other.get("a")).toBeUndefined();
    other.close();
    store.close();
  });
});

describe("Whoever is killed while it commits (R1)", () => {
  test("has every acknowledged change in the state, and nothing half", async () => {
    const path = newPath();
    const seed = 4_711;
    const registry = new Registry(seed);
    for (let round = 1; round <= 20; round++) {
      const child = Bun.spawn({
        cmd: [process.execPath, COMMITTER, path, String(seed), String(registry.batch + 1), "1e9"],
        stdout: "pipe",
        stderr: "inherit",
      });
      let told = "";
      for await (const chunk of child.stdout) {
        told += Buffer.from(chunk).toString();
        // Rounds end after one commit, after two, … and between any two of them.
        if (told.split("\n").length > round) child.kill("SIGKILL");
      }
      await child.exited;
      expect(child.signalCode).toBe("SIGKILL");
      const acknowledged = Number(told.slice(0, told.lastIndexOf("\n")).split("\n").at(-1));

      const store = Store.open(path);
      const present = Number(store.get("batch"));
      expect(present).toBeWithin(acknowledged, acknowledged + 2);
      while (registry.batch < present) registry.next();
      expect(store.load()).toEqual(registry.registered);
      expect(store.events({ last: 1 })[0]?.detail).toEqual({ batch: present });
      store.close();
    }
  });
});

test("A state of before how instances ended was remembered is brought up to date", () => {
  const path = newPath();
  const before = new Database(path, { create: true, readwrite: true });
  before.run(SCHEMA[0] as string);
  before.run(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = 1`);
  const insert =
    "INSERT INTO instances (id, path, binary, settings, checksum) VALUES (?, ?, ?, ?, ?)";
  before.query(insert).run(...encodeInstance(plainInstance(idOf(1))));
  before
    .query("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)")
    .run(...encodeRow("runs", [idOf(1), 1, null, "high", null]));
  before.close();
  let store = Store.open(path);
  const status = { ...IDLE, wanted: true, priority: "high" } as const;
  expect(store.load().instances).toEqual([{ ...plainInstance(idOf(1)), ...status }]);
  const exit = { code: 3, signal: undefined };
  const ended = { ...IDLE, last: { exit, wasStopped: true, restarts: 2 } };
  store.putStatus(idOf(1), ended);
  store.close();
  store = Store.open(path);
  expect(store.load().instances).toEqual([{ ...plainInstance(idOf(1)), ...ended }]);
  store.close();
});

test("Links whose address an earlier program spelled in another way are found, and written anew; of two that are one the first stays", () => {
  const path = newPath();
  Store.open(path).close();
  const before = new Database(path, { readwrite: true });
  const insert = before.query(
    "INSERT INTO links (type, source, target, settings, checksum) VALUES (?, ?, ?, ?, ?)",
  );
  const put = (typeName: string, to: string, maxBytes: number): void => {
    const { onFull, owner } = DEFAULT_LINK_SETTINGS;
    const settings = JSON.stringify({ maxBytes, maxMessages: null, onFull, owner });
    insert.run(...encodeRow("links", [typeName, "", to, settings]));
  };
  put("a::T", "[::ffff:102:304]:2661", 1);
  put("a::T", "[::ffff:1.2.3.4]:2661", 2);
  put("b::T", "[::ffff:1.2.3.4]:2661", 3);
  put("b::T", "[::ffff:102:304]:2661", 4);
  put("c::T", "[::ffff:102:304]:2661", 5);
  before.close();
  const to = { kind: "remote", host: "::ffff:1.2.3.4", port: 2661 } as const;
  const links = [1, 3, 5].map((maxBytes, i) => ({
    key: { from: undefined, typeName: `${"abc"[i]}::T`, to },
    settings: { ...DEFAULT_LINK_SETTINGS, maxBytes },
  }));
  let store = Store.open(path);
  expect(store.load().links).toEqual(links);
  expect(store.isDirty).toBe(false);
  expect(store.respellLinks()).toEqual([
    ["a::T", "", "[::ffff:1.2.3.4]:2661"],
    ["b::T", "", "[::ffff:102:304]:2661"],
  ]);
  expect(store.respellLinks()).toEqual([]);
  store.close();
  store = Store.open(path);
  expect(store.load().links).toEqual(links);
  for (const { key } of links) store.removeLink(key);
  expect(store.load().links).toEqual([]);
  store.close();
});
