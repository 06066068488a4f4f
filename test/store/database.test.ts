// What becomes of a state whose file, schema or disk is not as it should be.

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { OrchestratorError } from "../../src/errors.ts";
import { APPLICATION_ID, SCHEMA } from "../../src/store/schema.ts";
import { type Registered, Store } from "../../src/store.ts";
import { property, Random } from "../support/random.ts";
import { refusal } from "../support/refusal.ts";
import { idOf, plainInstance, Registry } from "../support/registry.ts";

const COMMITTER = join(import.meta.dir, "../fixtures/committer.ts");
const SEED = 42;
const BATCHES = 60;
const PAGE = 4096;
const SUFFIXES = ["", "-wal"] as const;

let folder: string;
let files = 0;
/** What is registered after each batch. */
const history: Registered[] = [];

beforeAll(async () => {
  // In memory where that is possible: some hundred files are made here, each made durable often.
  folder = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "vo-database-"));
  const registry = new Registry(SEED);
  history.push(registry.registered);
  while (registry.batch < BATCHES) {
    registry.next();
    history.push(registry.registered);
  }
  // The first sample is that of a killed daemon, and has a write-ahead log; the second has none.
  const killed = join(folder, "killed");
  const cmd = [process.execPath, COMMITTER, killed, String(SEED), "1", String(BATCHES)];
  const child = Bun.spawn({ cmd, stdout: "ignore", stderr: "inherit" });
  await child.exited;
  expect(child.signalCode).toBe("SIGKILL");
  const closed = copy("killed");
  Store.open(closed).close();
  copyFileSync(closed, join(folder, "closed"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A copy of a sample, in a name of its own. */
function copy(sample: "killed" | "closed"): string {
  const path = join(folder, `copy-${files++}`);
  for (const suffix of SUFFIXES) {
    const from = join(folder, `${sample}${suffix}`);
    if (existsSync(from)) copyFileSync(from, `${path}${suffix}`);
  }
  return path;
}

/** The bytes of a state, with its write-ahead log. */
function bytesOf(path: string): string {
  return SUFFIXES.map((suffix) =>
    existsSync(path + suffix) ? readFileSync(path + suffix).toString("latin1") : "",
  ).join("|");
}

function remove(path: string): void {
  for (const suffix of [...SUFFIXES, "-shm"]) rmSync(path + suffix, { force: true });
}

/** The refusal of a state, of which nothing may have changed. */
function refused(path: string): string {
  const before = bytesOf(path);
  const message = refusal(() => Store.open(path));
  expect(bytesOf(path)).toBe(before);
  return message;
}

/** Opens a damaged state: what is there must have been there once, or the state is refused and kept. */
function openOrRefuse(path: string): "opened" | "refused" {
  const before = bytesOf(path);
  let store: Store;
  try {
    store = Store.open(path);
  } catch (error) {
    expect(error).toBeInstanceOf(OrchestratorError);
    const { code, message, hint } = error as OrchestratorError;
    expect(bytesOf(path)).toBe(before);
    expect(message).toStartWith(`Cannot use the state in ${path}: `);
    if (code === "io") {
      // A bit in the header says that nobody may write.
      expect(message).toEndWith(": it may not be written");
      remove(path);
      return "refused";
    }
    expect(code).toBe("state_unusable");
    expect(message).toEndWith("; it was left as it is");
    expect(hint).toBe(
      `move ${path}* away to begin with an empty state, or start with another --state-dir`,
    );
    remove(path);
    return "refused";
  }
  const batch = Number(store.get("batch") ?? 0);
  expect(store.load()).toEqual(history[batch] as Registered);
  const events = store.events();
  expect(events).toHaveLength(batch);
  const whole = events.filter(({ kind }) => kind !== "unreadable");
  expect(batch - whole.length).toBeLessThanOrEqual(1);
  for (const { seq, kind, detail } of whole) {
    expect({ kind, detail }).toEqual({ kind: "changed", detail: { batch: seq } });
  }
  const instance = plainInstance(idOf(99_999));
  store.putInstance(instance);
  store.close();
  store = Store.open(path);
  expect(store.load().instances.at(-1)).toEqual(instance);
  store.close();
  remove(path);
  return "opened";
}

function flip(path: string, at: number, bit: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] as number) ^ (1 << bit);
  writeFileSync(path, bytes);
}

describe("A damaged state is opened as it once was, or refused and kept (R5)", () => {
  test("when it is whole, it is opened", () => {
    expect(openOrRefuse(copy("killed"))).toBe("opened");
    expect(openOrRefuse(copy("closed"))).toBe("opened");
  });

  test("when the file is cut at any page", () => {
    const size = statSync(join(folder, "closed")).size;
    expect(size).toBeGreaterThan(10 * PAGE);
    for (let length = 0; length < size; length += PAGE) {
      for (const cut of [length, length + 1]) {
        const path = copy("closed");
        truncateSync(path, cut);
        const outcome = openOrRefuse(path);
        // Of the last page it is not said that anything stands in it.
        if (cut === length || length < size - PAGE) expect(outcome).toBe("refused");
      }
    }
  });

  test("when the write-ahead log is cut at any page, or anywhere", () => {
    const size = statSync(join(folder, "killed-wal")).size;
    const [header, frame] = [32, 24 + PAGE];
    expect(size).toBeGreaterThan(20 * frame);
    const random = new Random(SEED);
    const step = Math.ceil(size / frame / 13) * frame;
    for (let length = 0; length <= size; length += step) {
      for (const cut of [length, length + header, length + random.int(1, frame)]) {
        const path = copy("killed");
        truncateSync(`${path}-wal`, Math.min(cut, size));
        expect(openOrRefuse(path)).toBe("opened");
      }
    }
  });

  property("when a bit of the file is turned over", 150, (random) => {
    const path = copy("closed");
    // The header and the inner pages are small and matter most.
    const size = random.chance(0.5) ? 2 * PAGE : statSync(path).size;
    flip(path, random.chance(0.2) ? random.int(0, 99) : random.int(0, size - 1), random.int(0, 7));
    openOrRefuse(path);
  });

  property("when a bit of the write-ahead log is turned over", 30, (random) => {
    const path = copy("killed");
    const size = random.chance(0.2) ? 32 : statSync(`${path}-wal`).size;
    flip(`${path}-wal`, random.int(0, size - 1), random.int(0, 7));
    expect(openOrRefuse(path)).toBe("opened");
  });

  property("when a stretch of the file is something else", 50, (random) => {
    const path = copy("closed");
    const bytes = readFileSync(path);
    const at = random.int(0, bytes.length - 1);
    const stretch = random.chance(0.5)
      ? random.bytes(random.size(2, PAGE))
      : Buffer.alloc(random.size(2, PAGE));
    stretch.copy(bytes, at);
    writeFileSync(path, bytes);
    openOrRefuse(path);
  });

  test("when an index does not agree with its table", () => {
    const path = copy("closed");
    const bytes = readFileSync(path);
    const { name } = (history[BATCHES] as Registered).instances[0]?.settings as { name: string };
    // In the table the name stands within JSON, in quotes.
    let at = bytes.indexOf(name);
    while (bytes[at - 1] === 0x22) at = bytes.indexOf(name, at + 1);
    bytes.write("o", at);
    writeFileSync(path, bytes);
    expect(refused(path)).toMatch(/it is damaged \(row \d+ missing from index \w+\)/);
  });

  const others: [what: string, make: (path: string) => void, reason: string][] = [
    ["empty", (path) => writeFileSync(path, ""), "it is empty"],
    ["text", (path) => writeFileSync(path, "my notes\n"), "it is damaged (file is not a database)"],
    [
      "much text",
      (path) => writeFileSync(path, "my notes\n".repeat(9_999)),
      "it is damaged (file is not a database)",
    ],
    ["a folder", (path) => mkdirSync(path), "it is not a file"],
    ["a symbolic link", (path) => symlinkSync(join(folder, "closed"), path), "it is not a file"],
    ["a link to nothing", (path) => symlinkSync("/nowhere", path), "it is not a file"],
    [
      "a database of another program",
      (path) => edit(path, "CREATE TABLE notes (text)"),
      "it belongs to another program",
    ],
    [
      "a newer state",
      (path) => {
        copyFileSync(join(folder, "closed"), path);
        edit(path, `PRAGMA user_version = ${SCHEMA.length + 1}`);
      },
      `it is of version ${SCHEMA.length + 1}, and this program knows ${SCHEMA.length}`,
    ],
    [
      "a state without one of its tables",
      (path) => {
        copyFileSync(join(folder, "closed"), path);
        edit(path, "DROP TABLE runs");
      },
      "it is damaged (its tables are not ours)",
    ],
    [
      "only a write-ahead log",
      (path) => copyFileSync(join(folder, "killed-wal"), `${path}-wal`),
      "of it, only PATH-wal is there",
    ],
  ];
  test.each(others)("when it is %s", (_, make, reason) => {
    const path = join(folder, `other-${files++}`);
    make(path);
    const isFile = statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true;
    const message = isFile ? refused(path) : refusal(() => Store.open(path));
    expect(message).toBe(
      `state_unusable: Cannot use the state in ${path}: ${reason.replace("PATH", path)}; it was left as it is`,
    );
  });

  const rows: [what: string, sql: string, fault: RegExp][] = [
    ["an instance was edited", "UPDATE instances SET path = '/bin/false'", /table instances does/],
    ["a status was edited", "UPDATE runs SET wanted = 1 - wanted", /table runs does/],
    ["a link was edited", "UPDATE links SET source = ''", /table links does/],
    ["a fact was edited", "UPDATE facts SET value = '7'", /table facts does/],
    ["a status is missing", "DELETE FROM runs", /^instance [0-9a-f-]+ has no status$/],
    ["an instance is missing", "DELETE FROM instances", /^there is the status of an unknown/],
    [
      "an instance and its status are missing",
      "DELETE FROM instances WHERE id = (SELECT target FROM links WHERE target LIKE '%-%' LIMIT 1);" +
        "DELETE FROM runs WHERE instance NOT IN (SELECT id FROM instances)",
      /^a link names the unknown instance /,
    ],
  ];
  test.each(rows)("when %s", (_, sql, fault) => {
    const path = copy("closed");
    edit(path, sql);
    const reason = /state in \S+: (.*); it was left/.exec(refused(path))?.[1];
    expect(reason).toMatch(fault);
  });

  test("but an event that was edited is told as unreadable, in its place", () => {
    const path = copy("closed");
    edit(path, "UPDATE events SET kind = 'forged' WHERE seq = 7");
    const store = Store.open(path);
    const kinds = store.events({ after: 5, last: 1e9 }).map(({ seq, kind }) => `${seq} ${kind}`);
    expect(kinds.slice(0, 3)).toEqual(["6 changed", "7 unreadable", "8 changed"]);
    store.close();
  });
});

/** Runs SQL on a file as the shell of SQLite would. */
function edit(path: string, sql: string): void {
  const database = new Database(path);
  database.run(sql);
  database.close();
}

describe("The schema", () => {
  const step = "ALTER TABLE instances ADD COLUMN note TEXT; UPDATE instances SET note = 'new'";
  const newer = { schema: [...SCHEMA, step] };

  test("is brought up to date, and every row is kept", () => {
    for (const sample of ["killed", "closed"] as const) {
      const path = copy(sample);
      const store = Store.open(path, newer);
      expect(store.load()).toEqual(history[BATCHES] as Registered);
      expect(store.events()).toHaveLength(BATCHES);
      store.close();
      const database = new Database(path);
      expect(database.query("PRAGMA user_version").values()).toEqual([[SCHEMA.length + 1]]);
      expect(database.query("SELECT DISTINCT note FROM instances").values()).toEqual([["new"]]);
      database.close();
      expect(refused(path)).toContain("it is of version");
    }
  });

  test("is made in a file of ours that has taken no step", () => {
    const path = join(folder, "version-0");
    edit(path, `PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = 0; VACUUM`);
    const store = Store.open(path);
    store.set("key", "value");
    store.close();
    expect(openOrRefuseValue(path)).toBe("value");
  });

  const failing: [what: string, step: string, reason: string][] = [
    [
      "cannot be taken",
      "UPDATE instances SET note = 'x'; DROP TABLE nowhere",
      "no such table: nowhere",
    ],
    ["loses a row", "DELETE FROM runs", "has no status"],
  ];
  test.each(failing)("stays as it is if a step %s", (_, bad, reason) => {
    for (const sample of ["killed", "closed"] as const) {
      const path = copy(sample);
      const before = bytesOf(path);
      const message = refusal(() => Store.open(path, { schema: [...SCHEMA, step, bad] }));
      expect(message).toStartWith("state_unusable: ");
      expect(message).toContain(reason);
      expect(bytesOf(path)).toBe(before);
      expect(openOrRefuse(path)).toBe("opened");
    }
  });

  function openOrRefuseValue(path: string): string | undefined {
    const store = Store.open(path);
    try {
      return store.get("key");
    } finally {
      store.close();
    }
  }
});

describe("The file", () => {
  test.each([0o000, 0o022, 0o077])("is its owner's alone under umask %o", (mask) => {
    const path = join(folder, `mask-${mask}`);
    const before = process.umask(mask);
    let store: Store | undefined;
    try {
      store = Store.open(path);
      store.set("key", "value");
      store.commit();
    } finally {
      process.umask(before);
    }
    const modes = ["", "-wal", "-shm"].map((suffix) => statSync(path + suffix).mode & 0o777);
    expect(modes).toEqual([0o600, 0o600, 0o600]);
    store.close();
  });

  test("becomes its owner's alone if it was copied back more loosely", () => {
    const path = copy("closed");
    chmodSync(path, 0o644);
    Store.open(path).close();
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("takes the place of what an unfinished start left", () => {
    const path = join(folder, "unfinished");
    for (const suffix of [".new", ".new-wal", ".new-journal", "-shm"]) {
      writeFileSync(path + suffix, "half");
    }
    writeFileSync(`${path}-wal`, "");
    Store.open(path).close();
    const left = readdirSync(folder).filter((name) => name.startsWith("unfinished"));
    expect(left).toEqual(["unfinished"]);
  });

  test("in a folder that is not there is refused", () => {
    expect(refusal(() => Store.open(join(folder, "nowhere/state.db")))).toBe(
      `io: Cannot use the state in ${folder}/nowhere/state.db: unable to open database file`,
    );
  });

  test("can be copied by SQLite while it is in use, and the copy is a state", () => {
    const path = copy("killed");
    const store = Store.open(path);
    store.set("key", "not committed");
    const backup = join(folder, "backup");
    const reader = new Database(path, { readonly: true });
    reader.run(`VACUUM INTO '${backup}'`);
    reader.close();
    store.commit();
    store.close();
    expect(openOrRefuse(backup)).toBe("opened");
  });

  test.skipIf(Bun.which("sqlite3") === null)("can be copied as docs/operations.md says", () => {
    const path = copy("killed");
    const store = Store.open(path);
    const backup = join(folder, "shell-backup");
    const cmd = ["sqlite3", path, `.backup '${backup}'`];
    expect(Bun.spawnSync({ cmd }).stderr.toString()).toBe("");
    store.close();
    expect(openOrRefuse(backup)).toBe("opened");
  });
});

/** Fills a state until a commit fails; returns how many did not. */
async function fill(store: Store): Promise<number> {
  for (let count = 0; ; count++) {
    store.putInstance({ ...plainInstance(idOf(count)), failed: "x".repeat(3_000) });
    store.putInstance({ ...plainInstance(idOf(50_000 + count)), failed: "x".repeat(3_000) });
    try {
      store.commit();
      await store.sync();
    } catch (error) {
      expect((error as Error).message).toEndWith("the disk is full, or the state too large");
      return count;
    }
  }
}

describe("A full disk (R6)", () => {
  test("undoes a change, lets reads go on, and costs nothing once there is room", async () => {
    const store = Store.open(join(folder, "full"), { maxBytes: 60 * PAGE });
    const count = await fill(store);
    expect(count).toBeGreaterThan(3);
    expect(store.load().instances).toHaveLength(2 * count);
    for (let i = 0; i < 3; i++) {
      store.putInstance({ ...plainInstance(idOf(90_000)), failed: "x".repeat(30_000) });
      expect(refusal(() => store.commit())).toStartWith("io: Cannot write the state in ");
    }
    store.removeInstance(idOf(0));
    store.removeInstance(idOf(1));
    store.commit();
    store.putInstance(plainInstance(idOf(90_000)));
    store.commit();
    expect(store.load().instances).toHaveLength(2 * count - 1);
    store.close();
  });

  const mount = join(tmpdir(), `vo-full-${process.pid}`);
  const run = (...cmd: string[]): boolean =>
    Bun.spawnSync({ cmd, stdout: "ignore", stderr: "ignore" }).success;
  const mountDisk = (): boolean => {
    mkdirSync(mount, { mode: 0o700 });
    return run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount);
  };
  const unmountDisk = (): void => {
    run("umount", "--lazy", mount);
    rmSync(mount, { recursive: true });
  };
  const canMount = (): boolean => {
    if (process.getuid?.() !== 0) return false;
    const isMounted = mountDisk();
    unmountDisk();
    return isMounted;
  };

  test.skipIf(!canMount())("is survived where it is real", async () => {
    expect(mountDisk()).toBe(true);
    try {
      const path = join(mount, "state.db");
      const ballast = join(mount, "ballast");
      const store = Store.open(path);
      writeFileSync(ballast, Buffer.alloc(2 ** 18));
      const count = await fill(store);
      expect(count).toBeGreaterThan(3);
      fillUp(ballast);
      expect(await fill(store)).toBe(0);
      expect(store.load().instances).toHaveLength(2 * count);
      rmSync(ballast);
      store.removeInstance(idOf(0));
      store.commit();
      const registered = store.load();
      expect(registered.instances).toHaveLength(2 * count - 1);

      // Without room, a killed daemon's state is opened or left for later; nothing of it is lost.
      for (const suffix of SUFFIXES) copyFileSync(path + suffix, join(folder, `kept${suffix}`));
      store.close();
      for (const suffix of SUFFIXES) copyFileSync(join(folder, `kept${suffix}`), path + suffix);
      fillUp(ballast);
      const [code] = outcome(path).split(":");
      expect(["opened", "io"]).toContain(code as string);
      rmSync(ballast);
      const again = Store.open(path);
      expect(again.load()).toEqual(registered);
      again.close();
    } finally {
      unmountDisk();
    }
  });

  function outcome(path: string): string {
    try {
      Store.open(path).close();
      return "opened";
    } catch (error) {
      return (error as OrchestratorError).code;
    }
  }

  /** Takes all the room that is left. */
  function fillUp(path: string): void {
    for (let size = 2 ** 20; size >= 1; size = Math.floor(size / 2)) {
      try {
        writeFileSync(path, Buffer.alloc(size), { flag: "a" });
      } catch {
        // Then a smaller piece fits, or nothing.
      }
    }
  }
});
