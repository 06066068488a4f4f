import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type FileLock, tryLock } from "../../src/files/lock.ts";
import { refusal } from "../support/refusal.ts";

const LOCKER = join(import.meta.dir, "../fixtures/locker.ts");

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "vo-lock-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("tryLock() gives a lock to one process at a time, also while others let go of it (R8)", async () => {
  const path = join(folder, "contended");
  const cmd = [process.execPath, LOCKER, path, "100"];
  const children = Array.from({ length: 4 }, () =>
    Bun.spawn({ cmd, stdout: "ignore", stderr: "pipe" }),
  );
  const faults = await Promise.all(
    children.map(async (child) => {
      const text = await new Response(child.stderr).text();
      return /EEXIST/.exec(text)?.[0] ?? text;
    }),
  );
  expect(faults).toEqual(["", "", "", ""]);
  expect(readdirSync(folder)).toEqual([]);
});

test("release() leaves the lock of somebody else alone, who found the name free", () => {
  const path = join(folder, "replaced");
  const first = tryLock(path) as FileLock;
  renameSync(path, `${path}.away`);
  const second = tryLock(path) as FileLock;
  first.release();
  expect(existsSync(path)).toBe(true);
  second.release();
  expect(existsSync(path)).toBe(false);
});

test("tryLock() says why there can be no lock", () => {
  writeFileSync(join(folder, "file"), "");
  const reasons = ["file/x", "nowhere/x", "."].map((name) =>
    refusal(() => tryLock(join(folder, name))),
  );
  expect(reasons).toEqual([
    `io: Cannot lock ${folder}/file/x`,
    `io: Cannot lock ${folder}/nowhere/x`,
    `io: Cannot lock ${folder}`,
  ]);
});
