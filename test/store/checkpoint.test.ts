// What becomes of a log that was moved into a file whose disk refuses it.

import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { STATE_LOG_BYTES } from "../../src/limits.ts";
import { Store } from "../../src/store.ts";
import { Checkpoint } from "../../src/store/checkpoint.ts";
import { PAGE_BYTES } from "../../src/store/database.ts";
import { until } from "../support/wire.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "vo-checkpoint-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const LONG = "x".repeat(STATE_LOG_BYTES * 1.2);

/** A state whose log was moved into the file, of which the disk has nothing, and has said so. */
async function refused(name: string) {
  const path = join(folder, name);
  Store.open(path).close();
  const before = readFileSync(path);
  const failure = (): Error => Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
  const disk = { refuses: true, asked: 0 };
  const store = Store.open(path, {
    openSyncer: (file) => ({
      sync: async () => {
        if (file !== path) return;
        disk.asked++;
        throw failure();
      },
      syncNow: () => {
        if (disk.refuses) throw failure();
      },
      close() {},
    }),
  });
  store.set("long", LONG);
  store.commit();
  await until("the disk was asked", () => disk.asked > 0);
  expect(statSync(path).size).toBeGreaterThan(before.length);
  const lose = (): void => {
    const fd = openSync(path, "r+");
    ftruncateSync(fd, before.length);
    writeSync(fd, before, 0, before.length, 0);
    closeSync(fd);
  };
  return { path, store, disk, lose };
}

test("All of it is written again before the log goes, and a change is answered (R1)", async () => {
  const { path, store, disk, lose } = await refused("again");
  const logBytes = statSync(`${path}-wal`).size;
  const failure = async (): Promise<string> => {
    const [error] = await Promise.allSettled([store.sync()]);
    return error?.status === "rejected" ? String(error.reason) : "";
  };
  for (let i = 0; i < 3; i++) {
    store.set("next", String(i));
    store.commit();
    expect(await failure()).toContain("Cannot write the state in");
  }
  expect(statSync(`${path}-wal`).size).toBeGreaterThan(logBytes);
  disk.refuses = false;
  lose();
  expect(await failure()).toBe("");
  expect(statSync(`${path}-wal`).size).toBe(0);
  store.close();
  const next = Store.open(path);
  expect([next.get("long"), next.get("next")]).toEqual([LONG, "2"]);
  next.close();
});

test("A disk that goes on to refuse is asked with one page, and all of it is copied when it takes that", async () => {
  const { path, store, disk, lose } = await refused("bound");
  lose();
  const lost = readFileSync(path);
  for (let i = 0; i < 3; i++) {
    store.set("next", String(i));
    store.commit();
    expect((await Promise.allSettled([store.sync()]))[0].status).toBe("rejected");
    const found = readFileSync(path);
    const changed = Array.from({ length: found.length / PAGE_BYTES }, (_, page) => page).filter(
      (page) => {
        const [from, to] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
        return !found.subarray(from, to).equals(lost.subarray(from, to));
      },
    );
    expect(changed.length).toBeLessThanOrEqual(1);
  }
  disk.refuses = false;
  await store.sync();
  store.close();
  const next = Store.open(path);
  expect([next.get("long"), next.get("next")]).toEqual([LONG, "2"]);
  next.close();
});

test("An end leaves the log where the disk refuses the file, and the next start finds all (R1)", async () => {
  const { path, store, lose } = await refused("end");
  expect(() => store.close()).toThrow("EIO");
  lose();
  const next = Store.open(path);
  expect(next.get("long")).toBe(LONG);
  next.close();
});

test("A log that was moved at once meanwhile is not kept for a sync that fails later", async () => {
  const path = join(folder, "late");
  Store.open(path).close();
  const disk = Promise.withResolvers<void>();
  const syncer = { sync: async () => {}, syncNow() {}, close() {} };
  const store = Store.open(path, { openSyncer: () => syncer });
  const checkpoint = new Checkpoint(path, syncer, () => ({ ...syncer, sync: () => disk.promise }));
  const running = checkpoint.run();
  await syncer.sync(); // what it waits for first
  checkpoint.abandon();
  disk.reject(new Error("EIO: i/o error"));
  expect(await running.catch(String)).toBe("Error: EIO: i/o error");
  expect(checkpoint.isRunning).toBe(false);
  checkpoint.close();
  store.close();
  checkpoint.closeFile();
});
