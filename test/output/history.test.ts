import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Histories, HistoryFiles } from "../../src/output/history.ts";
import { type OutputRecord, recordsBetween, select } from "../../src/output/recording.ts";
import { expected, played, record, someRecords } from "../support/output.ts";
import { property } from "../support/random.ts";

let base: string;
let folder: string;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "vo-history-"));
  folder = join(base, "instance");
});

afterEach(() => rmSync(base, { recursive: true, force: true }));

function open(maxFiles: number = 3, maxFileBytes: number = 2_000): HistoryFiles {
  return new HistoryFiles(folder, maxFiles, maxFileBytes);
}

async function appendAll(files: HistoryFiles, records: readonly OutputRecord[]): Promise<void> {
  for (let at = 0; at < records.length;) at += await files.append(records.slice(at));
}

async function all(files: HistoryFiles): Promise<string[]> {
  await files.look();
  return played(select(files, {}, files.end));
}

const names = (): string[] => readdirSync(folder).sort();
const bytesOnDisk = (): number =>
  names().reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);

/** Descriptors of this process that lead into the folder. */
function openFiles(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder);
    } catch {
      return false;
    }
  }).length;
}

describe("HistoryFiles", () => {
  property("hold the newest records, within the cap, also for a successor", 40, async (random) => {
    rmSync(folder, { recursive: true, force: true });
    const [maxFiles, maxFileBytes] = [random.int(1, 4), random.int(800, 3_000)];
    const records = someRecords(random, random.size(1, 150));
    let files = open(maxFiles, maxFileBytes);
    for (let at = 0; at < records.length;) {
      at += await files.append(records.slice(at, at + random.size(1, 20)));
      expect(bytesOnDisk()).toBeLessThanOrEqual(maxFiles * maxFileBytes);
      expect(names().length).toBeLessThanOrEqual(maxFiles);
      if (random.chance(0.1)) {
        await files.rest();
        if (random.chance(0.5)) files = open(maxFiles, maxFileBytes);
      }
    }
    const lines = await all(files);
    const wanted = expected(records);
    expect(lines.length).toBeGreaterThan(0);
    expect(lines).toEqual(wanted.slice(-lines.length));
    const last = random.size(1, 30);
    expect(await played(select(files, { last }, files.end))).toEqual(lines.slice(-last));
    await files.rest();
    expect(await all(open(maxFiles, maxFileBytes))).toEqual(lines);
  });

  test("fill their files before they rotate", async () => {
    const files = open(3, 4_000);
    const line = record(1, `${"x".repeat(99)}\n`);
    await appendAll(
      files,
      Array.from({ length: 200 }, () => line),
    );
    for (const name of names().slice(0, -1)) {
      expect(statSync(join(folder, name)).size).toBeWithin(4_000 - 138, 4_001);
    }
    expect(names()).toEqual(["00000006.log", "00000007.log", "00000008.log"]);
    await files.rest();
  });

  test("go on behind the last whole record, wherever the file was cut", async () => {
    const before = [record(1, "one\n"), record(2, "two\nlines\n", "stderr"), record(3, "three\n")];
    const ends = [0];
    const files = open();
    for (const one of before) {
      await files.append([one]);
      ends.push(files.end.offset);
    }
    await files.rest();
    const path = join(folder, "00000001.log");
    const bytes = readFileSync(path);
    for (let length = 0; length <= bytes.length; length++) {
      writeFileSync(path, bytes.subarray(0, length));
      const healed = open();
      const whole = before.slice(
        0,
        ends.findLastIndex((end) => end <= length),
      );
      expect(await all(healed)).toEqual(expected(whole));
      expect(statSync(path).size).toBe(ends[whole.length] as number);
      const after = record(4, "after\n");
      await healed.append([after]);
      await healed.rest();
      expect(await all(open())).toEqual(expected([...whole, after]));
      const last = await played(select(healed, { last: 2 }, healed.end));
      expect(last).toEqual(expected([...whole, after]).slice(-2));
    }
  });

  test("find the way back over a file that was cut to nothing", async () => {
    const files = open(3, 100);
    await appendAll(files, [record(1, `${"x".repeat(40)}\n`), record(2, `${"y".repeat(40)}\n`)]);
    await files.rest();
    truncateSync(join(folder, "00000002.log"), 10);
    const healed = open(3, 100);
    await healed.append([record(3, "after\n")]);
    const last = await played(select(healed, { last: 2 }, healed.end));
    expect(last).toEqual([`1 stdout ${"x".repeat(40)}`, "3 stdout after"]);
    await healed.rest();
  });

  test("take less room from now on when the cap was lowered", async () => {
    const many = Array.from({ length: 100 }, (_, i) => record(i, `${"x".repeat(60)}\n`));
    const files = open(4, 2_000);
    await appendAll(files, many);
    await files.rest();
    const smaller = open(2, 1_000);
    await smaller.append([record(100, "one more\n")]);
    expect(bytesOnDisk()).toBeLessThanOrEqual(2_000);
    expect((await all(smaller)).at(-1)).toBe("100 stdout one more");
    await smaller.rest();
  });

  test("give their room on the disk back even if somebody has them open", async () => {
    const files = open(2, 200);
    await files.append([record(1, `${"x".repeat(120)}\n`)]);
    const held = openSync(join(folder, "00000001.log"), "r");
    await appendAll(files, [record(2, `${"x".repeat(120)}\n`), record(3, `${"x".repeat(120)}\n`)]);
    expect(statSync(`/proc/self/fd/${held}`).size).toBe(0);
    closeSync(held);
    await files.rest();
  });

  test("are for nobody else, whatever the umask is", async () => {
    const mask = process.umask(0);
    try {
      const files = open();
      await files.append([record(1, "one\n")]);
      await files.rest();
    } finally {
      process.umask(mask);
    }
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(statSync(join(folder, "00000001.log")).mode & 0o777).toBe(0o600);
  });

  test("follow no symbolic link", async () => {
    const target = join(base, "target");
    writeFileSync(target, "precious");
    mkdirSync(folder);
    symlinkSync(target, join(folder, "00000001.log"));
    const files = open();
    await expect(files.append([record(1, "one\n")])).rejects.toThrow("ELOOP");
    expect(readFileSync(target, "utf8")).toBe("precious");
    rmSync(folder, { recursive: true });
    const elsewhere = join(base, "elsewhere");
    mkdirSync(elsewhere);
    symlinkSync(elsewhere, folder);
    await expect(open().append([record(1, "one\n")])).rejects.toThrow("not a folder");
    expect(readdirSync(elsewhere)).toEqual([]);
  });

  test.each([
    ["a symbolic link", (path: string) => symlinkSync("../target", path)],
    ["a folder", (path: string) => mkdirSync(join(path, "inner"), { recursive: true })],
  ])("go on with %s in the place of an old one, and remove it in its turn", async (_, replace) => {
    writeFileSync(join(base, "target"), "precious");
    const files = open(3, 100);
    const line = (i: number): OutputRecord => record(i, `${i} ${"x".repeat(50)}\n`);
    for (let i = 1; i <= 3; i++) await files.append([line(i)]);
    rmSync(join(folder, "00000001.log"));
    replace(join(folder, "00000001.log"));
    for (let i = 4; i <= 5; i++) await files.append([line(i)]);
    await files.rest();
    expect((await all(files)).map((text) => text[0])).toEqual(["3", "4", "5"]);
    expect(names()).toEqual(["00000003.log", "00000004.log", "00000005.log"]);
    expect(readFileSync(join(base, "target"), "utf8")).toBe("precious");
  });

  test("go on in the next one when a symbolic link takes the place of the last", async () => {
    const target = join(base, "target");
    const files = open(3, 100);
    await files.append([record(1, "one\n")]);
    renameSync(join(folder, "00000001.log"), target);
    symlinkSync(target, join(folder, "00000001.log"));
    const before = readFileSync(target, "utf8");
    await files.append([record(2, "two\n")]);
    await files.rest();
    for (const found of [files, open(3, 100)]) expect(await all(found)).toEqual(["2 stdout two"]);
    expect(readFileSync(target, "utf8")).toBe(before);
  });

  test("make nothing on the disk when they are only read", async () => {
    expect(await all(open())).toEqual([]);
    expect(readdirSync(base)).toEqual([]);
  });

  test.each([
    ["them", () => folder],
    ["those of all instances", () => base],
  ])("begin anew when somebody has removed %s", async (_, removed) => {
    const files = open();
    await files.append([record(1, "one\n")]);
    await files.rest();
    rmSync(removed(), { recursive: true });
    await files.append([record(2, "two\n")]);
    expect(await all(files)).toEqual(["2 stdout two"]);
    expect([base, folder].map((path) => statSync(path).mode & 0o777)).toEqual([0o700, 0o700]);
    await files.rest();
  });

  test.each([
    ["removed", "is open", (path: string) => rmSync(path)],
    ["removed", "rests", (path: string) => rmSync(path)],
    ["shortened", "is open", (path: string) => truncateSync(path, 60)],
    ["shortened", "rests", (path: string) => truncateSync(path, 60)],
    ["emptied", "is open", (path: string) => truncateSync(path, 0)],
    ["emptied", "rests", (path: string) => truncateSync(path, 0)],
  ])("go on when somebody has %s the last one, which %s", async (how, state, change) => {
    const files = open(3, 200);
    const before = [1, 2, 3].map((time) => record(time, `${time} ${"x".repeat(50)}\n`));
    await appendAll(files, before);
    if (state === "rests") await files.rest();
    const place = files.end;
    change(join(folder, "00000002.log"));
    await files.append([record(5, "five\n")]);
    await files.append([record(6, "six\n")]);
    const lines = await all(files);
    expect(lines.slice(-2)).toEqual(["5 stdout five", "6 stdout six"]);
    const last = await played(select(files, { last: 2 }, files.end));
    expect(last).toEqual(["5 stdout five", "6 stdout six"]);
    expect(await played(recordsBetween(files, place, files.end))).toEqual(last);
    expect(await all(open(3, 200))).toEqual(how === "removed" ? last : lines);
    await files.rest();
  });

  test("are searched once for all who ask, also for those whom a search before has failed", async () => {
    let searches = 0;
    const previous = {
      then: (resolve: () => void) => {
        searches++;
        resolve();
      },
    } as Promise<void>;
    writeFileSync(folder, "");
    const files = new HistoryFiles(folder, 3, 100, previous);
    const ask = (): Promise<void> => files.look().catch(() => files.look());
    const asked = await Promise.allSettled([ask(), ask(), ask()]);
    expect(asked.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
    expect(searches).toBe(2);
    rmSync(folder);
    await Promise.all([files.look(), files.look()]);
    expect(searches).toBe(3);
  });

  test("have no gap: what is older than one is removed", async () => {
    const files = open(4, 100);
    for (let i = 1; i <= 4; i++) await files.append([record(i, `${i} ${"x".repeat(50)}\n`)]);
    await files.rest();
    rmSync(join(folder, "00000002.log"));
    const lines = await all(open(4, 100));
    expect(lines.map((line) => line[0])).toEqual(["3", "4"]);
    expect(names()).toEqual(["00000003.log", "00000004.log"]);
  });

  test("go on when their numbers get longer", async () => {
    const first = open(3, 100);
    await first.append([record(1, "one\n")]);
    await first.rest();
    renameSync(join(folder, "00000001.log"), join(folder, "99999999.log"));
    const files = open(3, 100);
    for (let i = 2; i <= 3; i++) await files.append([record(i, `${i} ${"x".repeat(50)}\n`)]);
    await files.rest();
    const lines = await all(open(3, 100));
    expect(lines.map((line) => line[0])).toEqual(["1", "2", "3"]);
    expect(names()).toEqual(["100000000.log", "100000001.log", "99999999.log"]);
  });

  test("hold a descriptor only until they rest", async () => {
    const files = open();
    await files.append([record(1, "one\n")]);
    expect(openFiles()).toBe(1);
    await files.rest();
    await all(files);
    expect(openFiles()).toBe(0);
  });

  test("tell who watches of what comes, and of the end", async () => {
    const files = open();
    let changes = 0;
    const stop = files.watch(() => changes++);
    await files.append([record(1, "one\n")]);
    expect(changes).toBe(1);
    await files.remove();
    expect([changes, files.isGone]).toEqual([2, true]);
    stop();
  });
});

describe("Histories", () => {
  const histories = (): Histories =>
    new Histories({ folder: base, onTrouble() {}, now: () => 0, after: () => () => {} });

  test("let a new instance of an old name begin with nothing", async () => {
    const store = histories();
    const first = store.open("instance").files;
    await first.append([record(1, "old\n")]);
    const closed = Promise.withResolvers<void>();
    const removed = store.remove("instance", first, closed.promise);
    const second = store.open("instance").files;
    const appended = second.append([record(2, "new\n")]);
    closed.resolve();
    await Promise.all([removed, appended]);
    expect(await all(second)).toEqual(["2 stdout new"]);
    await second.rest();
  });

  test("remove what belongs to no instance", async () => {
    const store = histories();
    for (const id of ["kept", "orphan"]) {
      const { files } = store.open(id);
      await files.append([record(1, "one\n")]);
      await files.rest();
    }
    await store.sweep((id) => id === "kept" || id === "silent");
    expect(readdirSync(base)).toEqual(["kept"]);
  });

  test("let an instance begin that is added while those of no instance are removed", async () => {
    const store = histories();
    for (const id of ["instance", "orphan"]) {
      const { files } = store.open(id);
      await files.append([record(1, "old\n")]);
      await files.rest();
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const swept = store.sweep(() => {
      resolve();
      return false;
    });
    await promise;
    const { files } = store.open("instance");
    await files.append([record(2, "new\n")]);
    await swept;
    expect(await all(files)).toEqual(["2 stdout new"]);
    expect(readdirSync(base)).toEqual(["instance"]);
    await files.rest();
  });
});
